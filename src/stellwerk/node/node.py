"""The node: where everything is made, in the one order in which it can be, and taken down in the reverse one.

The zygote comes first, from the main thread and before any secret is in memory; then the store, then what reads it;
the ingress comes last, when everything behind it can answer.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from typing import Any

from stellwerk import __version__
from stellwerk.core import limits
from stellwerk.core.ids import LOCAL_ACCOUNT
from stellwerk.node.api.ports import Ports
from stellwerk.node.api.server import ControlServer
from stellwerk.node.clock import Clock, SystemClock
from stellwerk.node.config import Config
from stellwerk.node.deployment.collector import Collector
from stellwerk.node.deployment.deployments import Deployments
from stellwerk.node.deployment.version import LoadedVersion
from stellwerk.node.development import Development
from stellwerk.node.ingress.forward import Forwarder
from stellwerk.node.ingress.server import IngressServer
from stellwerk.node.isolate.pool import Pool
from stellwerk.node.isolate.process import Isolate
from stellwerk.node.isolate.traffic import Traffic
from stellwerk.node.service import Service, Stoppable
from stellwerk.node.telemetry.log import LogSink, choose_mode
from stellwerk.node.telemetry.metrics import Counters, Gauges
from stellwerk.node.turn import Turn
from stellwerk.node.workflow.engine import Engine
from stellwerk.node.workflow.runs import Runs
from stellwerk.store.sqlite.store import SqliteStore
from stellwerk.store.state_folder import StateFolder
from stellwerk.wire.api import NODE_FILE, NodeFile, encode_node_file
from stellwerk.wire.isolate import LogRecord


class Node:
    """One node on one state folder. ``start`` returns when it is ready; ``stop`` leaves nothing running."""

    def __init__(self, config: Config, *, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.counters = Counters()
        self.log = LogSink(
            clock=self.clock,
            counters=self.counters,
            mode=choose_mode(sys.stdout, as_json=config.as_json),
        )
        self.ready = False
        self._services: list[Stoppable] = []
        self._folder: StateFolder | None = None
        self._store: SqliteStore | None = None

    async def start(self) -> None:
        """Raises a ``StellwerkError`` that says what is in the way: a held state folder, a taken port, a bad file."""
        self.log.start()
        self._folder = folder = StateFolder.open(self.config.state, force=self.config.force)
        turn = Turn()
        traffic: Traffic
        self.pool = pool = Pool(
            state=folder.path,
            clock=self.clock,
            on_messages=lambda isolate, batch: traffic.on_messages(isolate, batch),
            on_lost=lambda isolate, cause, crashed: self._isolate_lost(traffic, isolate, cause, crashed),
            on_log=self._user_log,
            end_of_turn=turn.soon,
        )
        await self._begin(pool)
        self._store = store = await SqliteStore.open(
            folder.database,
            owner=self.clock.new_uuid(),
            now_ms=self.clock.now_ms(),
            alive=folder.alive,
            on_commit=self.counters.commit_latency.observe,
        )
        turn.crowded = lambda: store.reading
        self.deployments = deployments = Deployments(store, folder.path, self.clock, log=self.log)
        deployments.on_change.append(self._deployed)
        await self._begin(deployments)
        for worker, problem in deployments.problems.items():
            self.log.error("a Worker could not be loaded", worker=worker, error=str(problem))
        await self._begin(Collector(deployments, log=self.log))
        runs = Runs(
            account_id=LOCAL_ACCOUNT, store=store, pool=pool, versions=deployments, clock=self.clock, log=self.log
        )
        self.engine = Engine(runs, deployments)
        traffic = Traffic(pool, deployments, self.engine)  # before the engine starts, and runs have something to say
        self._services.append(traffic)
        if self.config.workspace:
            self.development = Development(self.config, deployments, self.log, runs)
            await self._begin(self.development)
        await self._begin(self.engine)
        await self._listen(folder, store, traffic, turn)

    async def _listen(self, folder: StateFolder, store: SqliteStore, traffic: Traffic, turn: Turn) -> None:
        forwarder = Forwarder(
            deployments=self.deployments, pool=self.pool, traffic=traffic, clock=self.clock, counters=self.counters
        )
        self._services.append(forwarder)
        self.ingress = IngressServer(
            forwarder.handle,
            host=self.config.ip,
            port=self.config.port,
            end_of_turn=turn.soon,
            clock=self.clock,
            hurried=self.engine.runs.table.at_work,
        )
        self.control = ControlServer(self._ports(folder, store), port=self.config.control_port)
        await self._begin(self.control)
        await self._begin(self.ingress)
        self._write_node_file(folder)
        gc.collect()
        gc.set_threshold(*limits.COLLECT_THRESHOLDS)
        gc.freeze()  # what is made by now lives as long as the node: later collections need not look at it
        self.ready = True

    async def _begin(self, service: Service) -> None:
        self._services.append(service)
        await service.start()

    def _ports(self, folder: StateFolder, store: SqliteStore) -> Ports:
        gauges = Gauges(isolates=self._isolates_by_status, queues=lambda: {"runs": self.engine.runs.dispatcher.queued})
        gauges.ingress = self.ingress
        gauges.counted += [("runs", self.engine.counters), ("isolates", self.pool.counters)]
        return Ports(
            deployments=self.deployments,
            engine=self.engine,
            store=store,
            log=self.log,
            counters=self.counters,
            gauges=gauges,
            now_ms=self.clock.now_ms,
            token=folder.token.read_text().strip(),
            ready=lambda: self.ready,
            system=self._system,
        )

    def _isolates_by_status(self) -> dict[str, int]:
        counted: dict[str, int] = {}
        for isolate in self.pool.snapshot():
            counted[isolate["status"]] = counted.get(isolate["status"], 0) + 1
        return counted

    def _system(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "state": str(self.config.state),
            "isolation": {"level": "floor", "active": ["own process", "clean environment", "no_new_privs", "rlimits"]},
            "ingress": f"http://{self.config.ip}:{self.ingress.port}",
            "isolates": self.pool.snapshot(),
            "problems": {worker: str(problem) for worker, problem in self.deployments.problems.items()},
        }

    def _write_node_file(self, folder: StateFolder) -> None:
        path = folder.path / NODE_FILE
        scratch = path.with_suffix(".new")
        scratch.write_bytes(
            encode_node_file(
                NodeFile(
                    pid=os.getpid(),
                    control_host="127.0.0.1",
                    control_port=self.control.port,
                    ingress_host=self.config.ip,
                    ingress_port=self.ingress.port,
                    version=__version__,
                )
            )
        )
        scratch.replace(path)

    # -- what is told -------------------------------------------------------------------------------------------------

    def _isolate_lost(self, traffic: Traffic, isolate: Isolate, cause: str, crashed: bool) -> None:
        if crashed:
            self.counters.isolates_crashed += 1
            self.log.error(
                "isolate crashed", worker=isolate.version.worker, version=isolate.version.version_id, cause=cause
            )
        traffic.on_lost(isolate, cause, crashed)

    def _user_log(self, isolate: Isolate, record: LogRecord) -> None:
        self.log.emit_user(isolate.version.worker, isolate.version.version_id, record)

    def _deployed(self, worker: str, old: LoadedVersion | None, new: LoadedVersion) -> None:
        for binding in new.manifest.defined_workflows():
            self.engine.runs.dispatcher.limit(binding.name, binding.concurrency_max)
        if old is not None and not self.engine.runs.table.uses(old.version_id):
            self.pool.drain_version(old.version_id)

    # -- the end ------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Lets requests finish, at most ``drain_ms``; runs stay what they are on disk. Twice is harmless."""
        self.ready = False
        if "ingress" in vars(self) and self.ingress.started.is_set():
            await self.ingress.drain(self.config.drain_ms)
        while self._services:
            await self._services.pop().stop()
        if self._store is not None:
            await self._store.close()
            self._store = None
        if self._folder is not None:
            (self._folder.path / NODE_FILE).unlink(missing_ok=True)
            self._folder.close()
            self._folder = None
        await asyncio.to_thread(self.log.close)
