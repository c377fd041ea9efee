"""What the benchmarks run: hello, and workflows of one, ten, a hundred parallel and a thousand steps."""

import asyncio

from workers import Response, WorkerEntrypoint, WorkflowEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("Hello world!")


class One(WorkflowEntrypoint):
    async def run(self, event, step):
        @step.do("only")
        async def only():
            return {"i": 1}

        return await only()


class Ten(WorkflowEntrypoint):
    async def run(self, event, step):
        total = 0
        for n in range(10):

            @step.do(f"step {n}")
            async def add():
                return {"i": n}  # noqa: B023 - awaited within the same turn

            total += (await add())["i"]
        return total


class Hundred(WorkflowEntrypoint):
    async def run(self, event, step):
        def declare(n):
            @step.do(f"step {n}")
            async def work():
                return n

            return work

        return sum(await asyncio.gather(*(declare(n)() for n in range(100))))


class Sleeper(WorkflowEntrypoint):
    async def run(self, event, step):
        await step.sleep("until much later", "30 days")


class Thousand(WorkflowEntrypoint):
    async def run(self, event, step):
        for n in range(1000):

            @step.do(f"step {n}")
            async def work():
                return n  # noqa: B023 - awaited within the same turn

            await work()
        await step.wait_for_event("go on", "go", timeout="1 hour")
        return "replayed"
