"""Streams: ``ReadableStream``, ``WritableStream`` and ``TransformStream``, over async iteration.

A stream has one source, an async iterator, and is read by one reader at a time. ``async for`` is a reader that cancels
the stream when it is left early. Back-pressure is the pull itself: nothing is produced before somebody asks, except
what a source enqueues in ``start``.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from workers._buffers import as_bytes
from workers._host import host
from workers._js import JsProxy, options_of, revivers


class ReadResult(JsProxy):
    """What ``reader.read()`` answers."""

    __slots__ = ("done", "value")

    def __init__(self, value: Any, done: bool) -> None:
        self.value, self.done = value, done


class ReadableStreamController(JsProxy):
    """What a source's ``start`` and ``pull`` are given."""

    def __init__(self) -> None:
        self._chunks: deque[Any] = deque()
        self._ended = False
        self._failure: BaseException | None = None
        self._changed: asyncio.Future[None] | None = None

    @property
    def desiredSize(self) -> int:
        return 0 if self._ended else 1 - len(self._chunks)

    def enqueue(self, chunk: Any) -> None:
        if self._ended:
            raise TypeError("Can't enqueue: the stream is closed.")
        self._chunks.append(chunk)
        self._wake()

    def close(self) -> None:
        self._ended = True
        self._wake()

    def error(self, reason: Any = None) -> None:
        self._failure = reason if isinstance(reason, BaseException) else Exception(str(reason))
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def _wait(self) -> None:
        self._changed = asyncio.get_running_loop().create_future()
        await self._changed


async def _settled(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


async def _from_hooks(
    controller: ReadableStreamController, started: Any, pull: Callable[..., Any] | None
) -> AsyncIterator[Any]:
    """The chunks of a source that has JavaScript's shape."""
    await _settled(started)
    while True:
        while controller._chunks:
            yield controller._chunks.popleft()
        if controller._failure is not None:
            raise controller._failure
        if controller._ended:
            return
        if pull is not None:
            await _settled(pull(controller))
        if not controller._chunks and not controller._ended:
            await controller._wait()


async def _from_iterable(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


class ReadableStream(JsProxy):
    """JavaScript's stream to read from. ``ReadableStream(source)`` takes an async iterator or JavaScript's hooks
    (``start``, ``pull``, ``cancel``) as an object or as keyword arguments."""

    def __init__(self, source: Any = None, *_strategy: Any, **hooks: Any) -> None:
        self.locked = False
        self._disturbed = False
        self._cancel: Callable[..., Any] | None = None
        if hasattr(source, "__aiter__"):
            self._chunks: AsyncIterator[Any] = source.__aiter__()
            return
        options = options_of((source,), hooks)
        controller = ReadableStreamController()
        start = options.get("start")
        started = start(controller) if start is not None else None
        self._cancel = options.get("cancel")
        self._chunks = _from_hooks(controller, started, options.get("pull"))

    @classmethod
    def from_(cls, items: Any) -> ReadableStream:
        """``ReadableStream.from(...)``: a stream of what an iterable or async iterable yields."""
        return cls(items if hasattr(items, "__aiter__") else _from_iterable(items))

    def _acquire(self) -> None:
        if self.locked:
            raise TypeError("This ReadableStream is currently locked to a reader.")
        self.locked = True

    async def _read(self) -> ReadResult:
        self._disturbed = True
        try:
            return ReadResult(await self._chunks.__anext__(), False)
        except StopAsyncIteration:
            return ReadResult(None, True)

    def getReader(self, *_options: Any, **_named: Any) -> ReadableStreamReader:
        return ReadableStreamReader(self)

    async def cancel(self, reason: Any = None) -> None:
        """Stops reading for good; the source may free what it holds."""
        self._disturbed = True
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            await _settled(cancel(reason))
        close = getattr(self._chunks, "aclose", None)
        self._chunks = _from_iterable(())
        if close is not None:
            await close()

    def tee(self) -> list[ReadableStream]:
        """Two streams with the same chunks. What the slower one has not read yet is kept in memory."""
        self._acquire()
        self._disturbed = True
        shared = _Tee(self._chunks)
        return [ReadableStream(shared.branch(0)), ReadableStream(shared.branch(1))]

    async def pipeTo(self, destination: WritableStream, *_options: Any, **_named: Any) -> None:
        writer = destination.getWriter()
        try:
            async for chunk in self:
                await writer.write(chunk)
        except BaseException as error:
            await writer.abort(error)
            raise
        await writer.close()

    def __aiter__(self) -> AsyncIterator[Any]:
        self._acquire()
        return self._iterated()

    async def _iterated(self) -> AsyncIterator[Any]:
        ended = False
        try:
            while True:
                result = await self._read()
                if result.done:
                    ended = True
                    return
                yield result.value
        finally:
            if not ended:
                await self.cancel()

    def _bytes(self) -> AsyncIterator[bytes]:
        """As ``async for``, for the host: every chunk must be binary. Nobody else reads from here on."""
        self._acquire()
        return self._binary(self._iterated())

    async def _binary(self, chunks: AsyncIterator[Any]) -> AsyncIterator[bytes]:
        try:
            async for chunk in chunks:
                yield as_bytes(chunk)
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]

    def __rpc_value__(self) -> tuple[str, Any]:
        raise TypeError(
            "A ReadableStream cannot be sent over RPC yet. Read it first, or pass it as the body of fetch()."
        )


def _revived(place: Any) -> ReadableStream:
    return ReadableStream(host().received_stream(place))


revivers["ReadableStream"] = _revived


class ReadableStreamReader(JsProxy):
    """``stream.getReader()``: exclusive until ``releaseLock``."""

    def __init__(self, stream: ReadableStream) -> None:
        stream._acquire()
        self._stream: ReadableStream | None = stream

    def _held(self) -> ReadableStream:
        if self._stream is None:
            raise TypeError("This ReadableStream reader has been released.")
        return self._stream

    async def read(self) -> ReadResult:
        return await self._held()._read()

    async def cancel(self, reason: Any = None) -> None:
        await self._held().cancel(reason)

    def releaseLock(self) -> None:
        if self._stream is not None:
            self._stream.locked = False
            self._stream = None


class _Tee:
    """Reads one source for two branches."""

    def __init__(self, chunks: AsyncIterator[Any]) -> None:
        self._source = chunks
        self._queues: tuple[deque[Any], deque[Any]] = (deque(), deque())
        self._open = [True, True]
        self._reading = asyncio.Lock()
        self._ended = False
        self._failure: BaseException | None = None

    async def branch(self, index: int) -> AsyncIterator[Any]:
        queue = self._queues[index]
        try:
            while True:
                if not queue:
                    async with self._reading:
                        if not queue:
                            await self._pull()
                if not queue:
                    if self._failure is not None:
                        raise self._failure
                    return
                yield queue.popleft()
        finally:
            self._open[index] = False
            queue.clear()
            if not any(self._open) and not self._ended:
                self._ended = True
                close = getattr(self._source, "aclose", None)
                if close is not None:
                    await close()

    async def _pull(self) -> None:
        if self._ended:
            return
        try:
            chunk = await self._source.__anext__()
        except StopAsyncIteration:
            self._ended = True
            return
        except Exception as error:
            self._ended, self._failure = True, error
            return
        for queue, is_open in zip(self._queues, self._open, strict=True):
            if is_open:
                queue.append(chunk)


class WritableStream(JsProxy):
    """JavaScript's stream to write to, over the hooks ``write``, ``close`` and ``abort``."""

    def __init__(self, sink: Any = None, *_strategy: Any, **hooks: Any) -> None:
        options = options_of((sink,), hooks)
        self._hooks: dict[str, Any] = {name: options[name] for name in ("write", "close", "abort") if name in options}
        self.locked = False

    def getWriter(self) -> WritableStreamWriter:
        if self.locked:
            raise TypeError("This WritableStream is currently locked to a writer.")
        self.locked = True
        return WritableStreamWriter(self)

    async def _call(self, hook: str, *args: Any) -> None:
        function = self._hooks.get(hook)
        if function is not None:
            await _settled(function(*args))


class WritableStreamWriter(JsProxy):
    def __init__(self, stream: WritableStream) -> None:
        self._stream = stream

    async def write(self, chunk: Any) -> None:
        """Returns when the chunk has been taken: back-pressure."""
        await self._stream._call("write", chunk)

    async def close(self) -> None:
        await self._stream._call("close")

    async def abort(self, reason: Any = None) -> None:
        await self._stream._call("abort", reason)

    def releaseLock(self) -> None:
        self._stream.locked = False


class TransformStream(JsProxy):
    """What is written to ``writable`` is read from ``readable``; a write returns once its chunk has been read.
    A transformer's ``transform(chunk, controller)`` and ``flush(controller)`` may change what passes."""

    def __init__(self, transformer: Any = None, *_strategies: Any, **hooks: Any) -> None:
        options = options_of((transformer,), hooks)
        self._transform, self._flush = options.get("transform"), options.get("flush")
        self._controller = ReadableStreamController()
        self._taken = asyncio.Event()
        self._gone = False
        self.readable = ReadableStream(self._read())
        self.writable = WritableStream({"write": self._write, "close": self._close, "abort": self._controller.error})

    async def _write(self, chunk: Any) -> None:
        if self._gone:
            raise TypeError("This TransformStream is no longer read.")
        if self._transform is None:
            self._controller.enqueue(chunk)
        else:
            await _settled(self._transform(chunk, self._controller))
        while self._controller._chunks and not self._gone:
            self._taken.clear()
            await self._taken.wait()

    async def _close(self) -> None:
        if self._flush is not None:
            await _settled(self._flush(self._controller))
        self._controller.close()

    async def _read(self) -> AsyncIterator[Any]:
        try:
            async for chunk in _from_hooks(self._controller, None, None):
                self._taken.set()
                yield chunk
        finally:
            self._gone = True
            self._taken.set()
