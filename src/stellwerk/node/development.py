"""``stellwerk dev``: the node with a workspace, and somebody who watches its files.

The same node as ``serve``. What it adds is where the versions come from, and what it tells about them.
"""

from __future__ import annotations

from collections.abc import Sequence

from stellwerk.core.errors import ConfigError
from stellwerk.node.config import Config
from stellwerk.node.deployment.deployments import Deployments
from stellwerk.node.telemetry.log import LogSink
from stellwerk.node.workflow.runs import Runs
from stellwerk.node.workspace.dev import WorkerReport, deploy_workspace
from stellwerk.node.workspace.loader import Workspace, load_workspace
from stellwerk.node.workspace.watcher import Watcher


class Development:
    """Service: deploys the workspace, then redeploys what changes."""

    def __init__(self, config: Config, deployments: Deployments, log: LogSink, runs: Runs) -> None:
        self._config, self._deployments, self._log, self._runs = config, deployments, log, runs
        self._watcher: Watcher | None = None
        self.reports: Sequence[WorkerReport] = ()

    async def start(self) -> None:
        """Raises ``ConfigError`` when the workspace holds no Worker at all that can be deployed."""
        workspace = load_workspace(self._config.workspace, self._config.environment)
        if not workspace.workers:
            raise (
                workspace.problems[0]
                if workspace.problems
                else ConfigError(
                    "there is no Worker in this workspace.",
                    file=str(self._config.workspace[0]),
                    cure="A Worker is a folder with a wrangler.jsonc, a wrangler.json or a wrangler.toml.",
                )
            )
        self.reports = await deploy_workspace(workspace, self._deployments)
        await self._tell(self.reports, first=True)
        self._watcher = Watcher(
            self._config.workspace, self._changed, environment=self._config.environment, baseline=workspace,
            log=self._log,
        )  # fmt: skip
        await self._watcher.start()

    async def stop(self) -> None:
        if self._watcher is not None:
            await self._watcher.stop()

    async def _changed(self, workspace: Workspace) -> None:
        self.reports = await deploy_workspace(workspace, self._deployments)
        await self._tell(self.reports, first=False)

    async def _tell(self, reports: Sequence[WorkerReport], *, first: bool) -> None:
        for report in reports:
            for notice in report.notices:
                self._log.warn(notice, worker=report.worker)
            if report.problem is not None:
                self._log.error(str(report.problem), worker=report.worker)
            if not first and report.outcome in ("deployed", "removed"):
                self._log.info(await self._redeployed(report), worker=report.worker)

    async def _redeployed(self, report: WorkerReport) -> str:
        if report.outcome == "removed":
            return "removed: its folder left the workspace"
        number = report.version.number if report.version is not None else 0
        old = report.replaced
        if old is None:
            return f"deployed version {number}"
        staying = await self._runs.store.unfinished_on(old.version_id)
        return f"redeployed: version {number} serves now, {staying} live runs stay on version {old.number}"

    def table(self) -> str:
        """Workers, where they answer, and their bindings, connected or not: what ``dev`` shows at its start."""
        rows = [("WORKER", "VERSION", "ANSWERS", "BINDING", "TO", "")]
        for report in self.reports:
            if not report.worker:
                continue
            version = "-" if report.version is None else str(report.version.number)
            answers = [*report.routes, *(["everything else"] if report.default else [])] or ["-"]
            bindings = [
                (
                    row.binding,
                    f"{row.kind} {row.target}",
                    "connected" if row.connected else f"NOT CONNECTED: {row.reason}",
                )
                for row in report.bindings
            ]
            for line in range(max(len(answers), len(bindings), 1)):
                binding = bindings[line] if line < len(bindings) else ("", "", "")
                rows.append(
                    (
                        report.worker if line == 0 else "",
                        version if line == 0 else "",
                        answers[line] if line < len(answers) else "",
                        *binding,
                    )
                )
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )
