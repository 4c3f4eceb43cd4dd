"""Serving container logs over a session: several at once, each held back by its reader's window."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import structlog

from agent.framing import split_chunk
from agent.workload import Workload
from homeport.protocol import CancelLogs, LogChunk, LogsRequest, MoreLogs

__all__ = ["MAX_LOGS", "LogServer"]

_log: Final = structlog.get_logger(__name__)

#: Logs served at a time. A reader holds a connection to the Engine and a few chunks of memory.
MAX_LOGS: Final = 32


class LogServer:
    """The logs being read over one session. Its tasks live in the session's `group` and end with it."""

    def __init__(
        self, workload: Workload, send: Callable[[LogChunk], Awaitable[None]], group: asyncio.TaskGroup
    ) -> None:
        self._workload = workload
        self._send = send
        self._group = group
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._windows: dict[str, asyncio.Semaphore] = {}

    def start(self, request: LogsRequest) -> None:
        """Serve a request from now on, or refuse it with an error chunk if there are too many."""
        if request.request_id in self._serving:
            return
        work = self._refuse(request) if len(self._serving) >= MAX_LOGS else self._serve(request)
        task = self._group.create_task(work)
        self._serving[request.request_id] = task
        self._windows[request.request_id] = asyncio.Semaphore(max(request.window, 1))
        task.add_done_callback(lambda _: self._forget(request.request_id))

    def more(self, message: MoreLogs) -> None:
        """The reader has room for more."""
        window = self._windows.get(message.request_id)
        if window is not None:
            for _ in range(message.chunks):
                window.release()

    def cancel(self, message: CancelLogs) -> None:
        """The reader is gone."""
        task = self._serving.get(message.request_id)
        if task is not None:
            task.cancel()

    def _forget(self, request_id: str) -> None:
        del self._serving[request_id]
        del self._windows[request_id]

    async def _refuse(self, request: LogsRequest) -> None:
        error = f"this host serves {MAX_LOGS} logs already"
        await self._send(LogChunk(request_id=request.request_id, end=True, error=error))

    async def _serve(self, request: LogsRequest) -> None:
        """Send the log as chunks, each when the reader has room, and always a last one with `end`."""
        window = self._windows[request.request_id]
        chunks = self._workload.logs(request)
        last = LogChunk(request_id=request.request_id, end=True)
        try:
            async for chunk in chunks:
                for part in split_chunk(chunk):
                    if part.end:
                        last = part
                        break
                    await window.acquire()
                    await self._send(part)
                if chunk.end:
                    break
        except (OSError, TimeoutError) as error:
            last = LogChunk(request_id=request.request_id, end=True, error=str(error) or type(error).__name__)
        finally:
            await _close(chunks)
        await self._send(last)


async def _close(chunks: AsyncIterator[LogChunk]) -> None:
    """Close what may be an async generator; a plain iterator has nothing to close."""
    aclose: Callable[[], Awaitable[None]] | None = getattr(chunks, "aclose", None)
    if aclose is not None:
        await aclose()
