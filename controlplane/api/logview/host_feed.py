"""A container's log straight from its host, as far as the Engine there can read it."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final, Protocol, cast

from controlplane.api.logview.hosts import connected, present
from controlplane.api.logview.model import FeedBroken, Line, Place, Sieve, Span
from controlplane.context import Context
from controlplane.state.records import TaskRecord
from homeport.ids import TaskId
from homeport.protocol import LogChunk
from homeport.spec import LogConfiguration

__all__ = ["HostFeed", "ReadLogs"]

#: How often it is looked whether a host is back.
_LOOK_S: Final = 0.5
#: Drivers whose logs the Engine reads by itself. Of others it may keep a copy for reading, unless told not to.
_READABLE: Final = frozenset({"json-file", "local", "journald"})


class ReadLogs(Protocol):
    """`FleetHub.read_logs`: the chunks of a container's log; the last one has `end` set."""

    def __call__(
        self, task_id: TaskId, container: str, *, follow: bool, tail: int | None, since: float | None
    ) -> AsyncIterator[LogChunk]:
        """Yield the chunks. Closing the iterator stops the host."""
        ...


class HostFeed:
    """See Feed. Its end is known only once it was read."""

    last_at: float | None = None

    def __init__(self, context: Context, read_logs: ReadLogs, task: TaskRecord, container: str) -> None:
        self._context = context
        self._read_logs = read_logs
        self._task = task
        self._container = container
        self._at: float | None = None

    @property
    def place(self) -> Place | None:
        """See Feed."""
        return None if self._at is None else (self._at, 0)

    def skip(self, place: Place) -> None:
        """See Feed."""
        self._at = place[0]

    def rest(self) -> str:
        """See Feed."""
        return ""

    async def forwards(
        self,
        span: Span,
        *,
        page_bytes: int = 0,  # noqa: ARG002
        tail: int | None = None,
    ) -> AsyncGenerator[Sequence[Line]]:
        """See Feed. The host decides how much comes at a time."""
        since = span.since if span.after is None else max(span.after[0], span.since or -math.inf)
        async with aclosing(self._read(follow=False, tail=tail, since=since)) as pages:
            async for lines in pages:
                wanted = lines if span.until is None else [line for line in lines if line.at < span.until]
                if wanted:
                    yield wanted
                if len(wanted) < len(lines):
                    return

    async def backwards(self, span: Span, sieve: Sieve, *, page: int) -> AsyncGenerator[Sequence[Place]]:
        """See Feed. The places are held until the last is known: the Engine reads forwards only."""
        places: list[Place] = []
        tail = max(page, 1) if sieve == Sieve() and span.until is None else None
        async with aclosing(self.forwards(span, tail=tail)) as pages:
            async for lines in pages:
                places += [(line.at, line.number) for line in sieve.sift(lines)]
        yield places[::-1]

    async def live(self, *, tail: int | None = None, since: float | None = None) -> AsyncGenerator[Sequence[Line]]:
        """See Feed; `tail` and `since` for one that wasn't read before. A host that goes away is waited for."""
        patience = True
        while True:
            before = self._at
            try:
                since = since if self._at is None else self._at
                async with aclosing(self._read(follow=True, tail=tail, since=since)) as pages:
                    async for lines in pages:
                        yield lines
                return
            except FeedBroken:
                patience = patience or self._at != before
                if self._at is None or (connected(self._context, self._task) and not patience):
                    raise
            patience, tail = False, None
            await self._host_back()

    async def _host_back(self) -> None:
        await asyncio.sleep(_LOOK_S)
        while not connected(self._context, self._task):
            if self._task.id not in self._context.state.tasks:
                raise FeedBroken("its host went away, and the task has stopped")
            await asyncio.sleep(_LOOK_S)

    async def _read(self, *, follow: bool, tail: int | None, since: float | None) -> AsyncGenerator[Sequence[Line]]:
        task_id, name = self._task.id, self._container
        chunks = self._read_logs(task_id, name, follow=follow, tail=tail, since=since)
        async with aclosing(cast("AsyncGenerator[LogChunk]", chunks)):
            async for chunk in chunks:
                if chunk.lines:
                    self._at = chunk.lines[-1][0]
                    yield [Line(at, stream, text, task_id, name) for at, stream, text in chunk.lines]
                if chunk.end:
                    if chunk.error:
                        raise FeedBroken(chunk.error + self._where_to_look())
                    return
        raise FeedBroken("the log broke off")

    def _where_to_look(self) -> str:
        """Say where the log of a driver goes that the Engine may be unable to read."""
        log = present(self._context, self._task).spec.container(self._container).log
        if log is None or log.driver in _READABLE or not connected(self._context, self._task):
            return ""
        return f" (its log driver is {log.driver}: {_destination(log)})"


def _destination(log: LogConfiguration) -> str:
    if log.driver == "none":
        return "nothing is kept"
    where = [value for name, value in log.options.items() if name.endswith(("-address", "-url"))]
    return f"look for it at {where[0]}" if where else "look for it where that driver sends it"
