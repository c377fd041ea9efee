"""The Worker that the kill tests run: every step has one effect outside, and says what it saw of the steps before."""

from __future__ import annotations

import json
from pathlib import Path

LOAD_STAGES = [["first"], ["left", "right", "third"], ["flaky"], ["last"]]
"""The steps of the workflow ``load``, in stages: no step of a stage may begin before all of the stage before it are
recorded. Between the second and the third it sleeps, then waits for an event. The checker is told this, as a fact."""
NAP_BEFORE_STAGE = 2
KILLS_AT_IMPORT = "kills-at-import"  # a file in the workspace's folder

SOURCE = '''
"""Steps with effects. VERSION is replaced when the Worker is edited."""

import asyncio
import json
import os
import signal
import time
import uuid

from workers import WorkflowEntrypoint, fetch

VERSION = "VERSION-1"
LARGE = 70_000  # bytes: past 64 KiB a result is kept beside the journal
STUBBORN = {"retries": {"limit": 30, "delay": 10, "backoff": "constant"}}
ONCE = {"retries": {"limit": 1, "delay": 10, "backoff": "constant"}}
TRACE = "KILLS-AT-IMPORT"  # while this file is there, importing the module ends the node, and leaves a line in it


def kill_the_node(trace):
    with open(trace, "a") as file:
        file.write("begun\\n")
    with open(f"/proc/{os.getppid()}/stat") as file:  # of the zygote, whose parent is the node
        node = int(file.read().rpartition(")")[2].split()[1])
    os.kill(node, signal.SIGKILL)
    time.sleep(60)


if os.path.exists(TRACE):
    kill_the_node(TRACE)


class Base(WorkflowEntrypoint):
    """``effect`` writes one line into the ledger, and returns a value that no other attempt returns."""

    async def effect(self, event, name, ctx, seen=None, fails=False, pad=0):
        value = VERSION + "/" + uuid.uuid4().hex + "." * pad
        line = {
            "instance": event["instanceId"], "step": name, "attempt": ctx["attempt"], "value": value, "fails": fails,
            "seen": seen or {}, "at": time.monotonic(), "isolate": os.getpid(),
        }
        answer = await fetch(self.env.LEDGER + "/effects", method="POST", body=json.dumps(line))
        if answer.status != 200:
            raise RuntimeError("the ledger did not take it")
        return value


class Load(Base):
    """Four stages, three of them at once in the second, a sleep, an event, a step that fails a few times."""

    async def run(self, event, step):
        payload = event["payload"]
        seen = {}

        def doing(name, fails=0):
            @step.do(name, config=STUBBORN)
            async def act(ctx):
                failing = ctx["attempt"] <= fails
                pad = LARGE if payload.get("large") and name == "third" else 0
                value = await self.effect(event, name, ctx, dict(seen), failing, pad)
                await asyncio.sleep(payload["work_ms"] / 1000)
                if failing:
                    raise RuntimeError("fails on purpose")
                return value

            return act

        seen["first"] = await doing("first")()
        names = ("left", "right", "third")
        seen.update(zip(names, await asyncio.gather(*(doing(name)() for name in names))))
        await step.sleep("nap", payload["nap_ms"])
        sent = await step.wait_for_event("signal", "signal", timeout="1 hour")
        seen["flaky"] = await doing("flaky", payload["fails"])()
        seen["last"] = await doing("last")()
        return {**seen, "event": sent["payload"]}


class Sleeper(Base):
    """One effect, a sleep, one effect."""

    async def run(self, event, step):
        @step.do("before", config=STUBBORN)
        async def before(ctx):
            return await self.effect(event, "before", ctx)

        @step.do("after", config=STUBBORN)
        async def after(ctx):
            return await self.effect(event, "after", ctx)

        early = await before()
        await step.sleep("nap", event["payload"]["nap_ms"])
        return {"before": early, "after": await after()}


class Bomb(Base):
    """Params say what it does: ``step`` or ``body`` that ends the isolate, a step that ends the node (its pid), or
    ``bare``: the node ends before anything is recorded. That one leaves a line in a file each time."""

    async def run(self, event, step):
        payload = event["payload"]
        kind = payload["kind"]

        @step.do("work", config=STUBBORN)
        async def work(ctx):
            value = await self.effect(event, "work", ctx)
            await asyncio.sleep(payload.get("work_ms", 0) / 1000)
            return value

        @step.do("crash", config=ONCE)
        async def crash(ctx):
            await self.effect(event, "crash", ctx)
            self.explode(payload)

        if kind == "innocent":
            return await work()
        if kind == "bare":
            kill_the_node(payload["trace"])
        if kind == "body":
            await work()
            os._exit(7)
        if kind == "parallel":
            return await self.parallel(event, step, crash)
        return await crash()

    async def parallel(self, event, step, crash):
        def innocent(number):
            @step.do(f"innocent {number}", config=STUBBORN)
            async def act(ctx):
                value = await self.effect(event, f"innocent {number}", ctx)
                await asyncio.sleep(0.05)
                return value

            return act

        async def caught():
            try:
                await crash()
            except Exception as error:
                return f"{type(error).__name__}: {error}"

        *values, error = await asyncio.gather(*(innocent(number)() for number in range(20)), caught())
        return {"values": values, "error": error}

    def explode(self, payload):
        if payload.get("node"):
            with open(payload["node"]) as file:
                pid = json.load(file)["pid"]
            os.kill(pid, signal.SIGKILL)
            time.sleep(60)
        os.kill(os.getpid(), signal.SIGKILL) if payload.get("signal") else os._exit(3)
'''


def write_workspace(root: Path, ledger_url: str) -> Path:
    """A workspace with this one Worker; its main file."""
    source = root / "harness" / "src"
    source.mkdir(parents=True)
    wrangler = {
        "name": "harness",
        "main": "src/entry.py",
        "compatibility_date": "2026-03-01",
        "compatibility_flags": ["python_workers"],
        "vars": {"LEDGER": ledger_url},
        "workflows": [
            *(
                {"name": name.lower(), "binding": name.upper(), "class_name": name}
                for name in ("Load", "Sleeper", "Bomb")
            ),
            {"name": "single", "binding": "SINGLE", "class_name": "Bomb", "concurrency": {"limit": 1}},
        ],
    }
    (source.parent / "wrangler.jsonc").write_text(json.dumps(wrangler))
    (source.parent / "stellwerk.toml").write_text('[egress]\nallow = ["127.0.0.1"]\n')
    (source / "entry.py").write_text(SOURCE.replace("KILLS-AT-IMPORT", str(root / KILLS_AT_IMPORT)))
    return source / "entry.py"
