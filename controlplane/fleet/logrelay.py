"""Logs on their way from a host to a reader: a bounded buffer for each, with the agent held back by a window.

The agent may have `window` chunks under way; each chunk that the reader takes allows one more. So a slow reader slows
one log down and nothing else, and the buffer can't grow.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final

from homeport.errors import ProtocolError
from homeport.ids import TaskId
from homeport.protocol import CancelLogs, ControlMessage, LogChunk, LogsRequest, MoreLogs

__all__ = ["LOG_WINDOW", "LogRelays", "failed"]

#: Chunks under way for one reader. At some 128 KiB each this bounds a reader's memory to 2 MiB.
LOG_WINDOW: Final = 16
#: Readers of one host's logs at a time.
MAX_READERS: Final = 32


def failed(request_id: str, error: str) -> LogChunk:
    """Return the last chunk of a log that can't be read (on)."""
    return LogChunk(request_id=request_id, end=True, error=error)


class LogRelays:
    """The logs that are being read over one session. `post` takes a message for the host and doesn't wait."""

    def __init__(self, post: Callable[[ControlMessage], None]) -> None:
        self._post = post
        self._queues: dict[str, asyncio.Queue[LogChunk]] = {}

    def take(self, chunk: LogChunk) -> None:
        """Take a chunk from the host. One that nobody waits for (any more) is dropped.

        Raises ProtocolError if the host sends more than its window.
        """
        queue = self._queues.get(chunk.request_id)
        if queue is None:
            return
        if queue.qsize() >= LOG_WINDOW and not chunk.end:
            raise ProtocolError("more log chunks than were asked for")
        queue.put_nowait(chunk)

    def fail_all(self, error: str) -> None:
        """The session is over: end every log with an error."""
        for request_id, queue in self._queues.items():
            queue.put_nowait(failed(request_id, error))

    async def read(
        self, request_id: str, task_id: TaskId, container: str, *, follow: bool, tail: int | None, since: float | None
    ) -> AsyncGenerator[LogChunk, None]:
        """Ask the host for a log and yield its chunks up to the one with `end`. Closing the iterator stops the host."""
        if len(self._queues) >= MAX_READERS:
            yield failed(request_id, f"{MAX_READERS} logs of this host are being read already; close one of them")
            return
        queue: asyncio.Queue[LogChunk] = asyncio.Queue()
        self._queues[request_id] = queue
        ended = False
        try:
            self._post(
                LogsRequest(
                    request_id=request_id,
                    task_id=task_id,
                    container=container,
                    follow=follow,
                    tail=tail,
                    since=since,
                    window=LOG_WINDOW,
                )
            )
            while not ended:
                chunk = await queue.get()
                ended = chunk.end
                if not ended:
                    self._post(MoreLogs(request_id=request_id, chunks=1))
                yield chunk
        finally:
            del self._queues[request_id]
            if not ended:
                self._post(CancelLogs(request_id=request_id))
