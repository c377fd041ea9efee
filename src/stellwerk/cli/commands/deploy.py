"""``deploy``: a Worker's folder to a running node, as a new version that serves at once."""

from __future__ import annotations

import json
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from stellwerk.cli.client import Client
from stellwerk.cli.exits import CommandError, Exit
from stellwerk.cli.folder import WorkerFolder, read_folder, read_text
from stellwerk.cli.options import DEFAULT, Common
from stellwerk.core.deployment.manifest import Manifest
from stellwerk.core.deployment.parse import ParsedWorker, parse_worker
from stellwerk.core.errors import BundleError, StellwerkError

_SECRET_MISSING = "config.secret_missing"


def deploy(
    folder: Annotated[Path, Parameter(help="Folder of the Worker.")] = Path(),
    /,
    *,
    env: Annotated[str | None, Parameter(help="Environment of the configuration file (`env.<name>`).")] = None,
    message: Annotated[str, Parameter(help="A note that stays with the version.")] = "",
    secrets_file: Annotated[
        Path | None, Parameter(help="Secrets as `KEY=value` lines. Without it the Worker keeps the secrets it has.")
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """Upload a Worker's folder as a new version and let it serve. Live runs stay on their version."""
    output = common.output()
    try:
        read = read_folder(folder)
        parsed = _parse(read, secrets_file, env)
        _check_main(parsed.manifest, read.files)
    except StellwerkError as error:
        raise CommandError(_cause(error), cure=error.cure, code=error.code) from error
    with common.connect() as client:
        for text in [*_notices(client, parsed), *read.left_out]:
            output.note(f"warning: {text}")
        made = client.upload(
            "workers",
            "scripts",
            parsed.manifest.name,
            metadata=_metadata(parsed.manifest, message),
            files=read.files,
        )
    if output.as_json:
        output.json(made)
    else:
        output.line(f"{made['id']} version {made['number']} ({made['version_id']}) serves")


def _parse(read: WorkerFolder, secrets_file: Path | None, environment: str | None) -> ParsedWorker:
    return parse_worker(
        read.wrangler,
        settings=read.settings,
        workspace_settings=read.workspace_settings,
        dev_vars=read_text(secrets_file) if secrets_file else None,
        environment=environment,
        today=_today(),
    )


def _today() -> date:
    return datetime.fromtimestamp(time.time(), UTC).date()


def _check_main(manifest: Manifest, files: dict[str, bytes]) -> None:
    if manifest.main not in files:
        raise BundleError(
            f'The main module "{manifest.main}" is not in the folder.', cure='Correct "main" in its configuration.'
        )


def _cause(error: StellwerkError) -> str:
    """The error's text with its place in front and without the cure, which is printed by itself."""
    return str(error).removesuffix(f" {error.cure}") if error.cure else str(error)


def _metadata(manifest: Manifest, message: str) -> str:
    metadata: dict[str, Any] = {"main_module": manifest.main, "stellwerk": msgspec.to_builtins(manifest)}
    if message:
        metadata["annotations"] = {"workers/message": message}
    return json.dumps(metadata)


def _notices(client: Client, parsed: ParsedWorker) -> list[str]:
    """Warnings of the configuration; a required secret that the Worker has already is not missing."""
    missing = [notice for notice in parsed.warnings if notice.code == _SECRET_MISSING]
    kept = _secrets_of(client, parsed.manifest.name) if missing else set()
    return [
        str(notice)
        for notice in parsed.warnings
        if notice not in missing or not any(f'"{name}"' in notice.text for name in kept)
    ]


def _secrets_of(client: Client, worker: str) -> set[str]:
    try:
        bindings = client.get("workers", "scripts", worker, "settings")["bindings"]
    except CommandError as error:
        if error.exit_code is Exit.NOT_FOUND:
            return set()
        raise
    return {binding["name"] for binding in bindings if binding["type"] == "secret_text"}
