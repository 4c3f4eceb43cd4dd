"""Where a container's log is read: in the store if anything of it is there, else on its host."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Final

from controlplane.api.logview.host_feed import HostFeed, ReadLogs
from controlplane.api.logview.hosts import away, connected, present, report_of, stopped
from controlplane.api.logview.model import Feed, FeedBroken, Line, Place, Sieve, Span
from controlplane.api.logview.store_feed import StoreFeed
from controlplane.context import Context
from controlplane.logs.api import GroupMissing, LogStream, StoreUnavailable, StreamMissing
from controlplane.state.records import TaskRecord
from homeport.spec import LogShipping

__all__ = ["LateFeed", "open_feed", "settled", "stream_name"]

#: What a container wrote reaches the store within a second; how long the last lines of one that has just stopped, or
#: the first ones of one that has just begun, are waited for, and how long after its stop that makes sense.
_SETTLE_S: Final = 3.0
_SETTLED_S: Final = 60.0
#: A stream that isn't even there after this long has something in its way.
_STREAM_S: Final = 1.0
_LOOK_S: Final = 0.25


async def open_feed(context: Context, read_logs: ReadLogs, task: TaskRecord, container: str, *, follow: bool) -> Feed:
    """Return the log of a container. Raises FeedBroken if there is none, and (unless following) none to come."""
    shipping = task.spec.container(container).shipping
    if shipping is None:
        if follow and _is_awaited(context, task, container):
            return LateFeed(context, read_logs, task, container)
        _check_begun(context, task, container)
        return HostFeed(context, read_logs, task, container)
    problem = ""
    try:
        stream = await settled(context, task, container, shipping)
    except StoreUnavailable as error:
        stream, problem = None, f"the log store is away: {error}"
    if stream is not None and (stream.next_number > 1 or stream.ended):
        return StoreFeed(context, task, container, stream)
    if follow and not problem and not stopped(context, task, container):
        return LateFeed(context, read_logs, task, container)
    _check_begun(context, task, container)
    if connected(context, task) and task.id in context.state.tasks:
        return HostFeed(context, read_logs, task, container)
    if stream is not None:
        return StoreFeed(context, task, container, stream)
    raise FeedBroken(problem or f"nothing of it has arrived{_but(away(context, task))}")


def _but(why: str) -> str:
    return f"; {why}" if why else ", or it has expired"


def stream_name(task: TaskRecord, container: str) -> str:
    """Return the name of the stream that a container is shipped to; "" if it isn't known yet, or isn't shipped."""
    shipping = task.spec.container(container).shipping
    report = report_of(task, container)
    return "" if shipping is None else shipping.stream(container, task.id, (report and report.runtime_id) or "")


def _is_awaited(context: Context, task: TaskRecord, container: str) -> bool:
    """Tell whether a container has yet to be made, by a host that can do so or isn't chosen yet."""
    able = connected(context, task) or present(context, task).instance_id is None
    return able and not _begun(context, task, container) and not stopped(context, task)


def _begun(context: Context, task: TaskRecord, container: str) -> bool:
    now = present(context, task)
    report = report_of(now, container)
    return now.instance_id is not None and report is not None and report.runtime_id is not None


def _check_begun(context: Context, task: TaskRecord, container: str) -> None:
    """Raise FeedBroken if a container was never made, where that is known: a host that is cut off may have more."""
    now = present(context, task)
    report = report_of(now, container)
    if now.instance_id is None:
        why = "the task never got to a host" if stopped(context, task) else "it isn't on a host yet"
        raise FeedBroken(why, harmless=True)
    if stopped(context, task) and (report is None or report.runtime_id is None):
        reason = (report and report.reason) or now.stopped_reason
        text = f"container {container} was never started" + (f": {reason}" if reason else "")
        raise FeedBroken(text, harmless=True)


async def _find(context: Context, task: TaskRecord, container: str, shipping: LogShipping) -> LogStream | None:
    name = stream_name(present(context, task), container)
    if not name:
        return None
    with suppress(GroupMissing, StreamMissing):
        return await context.logs.stream(shipping.group, name)
    return None


async def settled(context: Context, task: TaskRecord, container: str, shipping: LogShipping) -> LogStream | None:
    """Return the stream, once it has the last lines of a container that has just stopped, if its host can send them."""
    stream = await _find(context, task, container, shipping)
    began = context.clock.monotonic()
    while (stream is None or not stream.ended) and _just_stopped(context, task, container):
        patience = _STREAM_S if stream is None else _SETTLE_S
        left = began + patience - context.clock.monotonic()
        if left <= 0:
            break
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                if stream is None:
                    await asyncio.sleep(_LOOK_S)
                else:
                    await context.logs.grown(shipping.group, stream.name, stream.next_number - 1)
        stream = await _find(context, task, container, shipping)
    return stream


def _just_stopped(context: Context, task: TaskRecord, container: str) -> bool:
    if not connected(context, task) or not _begun(context, task, container):
        return False
    now = present(context, task)
    report = report_of(now, container)
    ended_at = (report and report.finished_at) or now.stopped_at
    return ended_at is not None and context.clock.now() - ended_at < _SETTLED_S and stopped(context, now, container)


class LateFeed:
    """See Feed: of a container that hasn't begun yet, or whose first lines aren't here yet."""

    last_at: float | None = None

    def __init__(self, context: Context, read_logs: ReadLogs, task: TaskRecord, container: str) -> None:
        self._context = context
        self._read_logs = read_logs
        self._task = task
        self._container = container
        self.place: Place | None = None
        self._found: Feed | None = None

    def skip(self, place: Place) -> None:
        """See Feed."""
        self.place = place

    def rest(self) -> str:
        """See Feed."""
        return away(self._context, self._task) if self._found is None else self._found.rest()

    async def forwards(self, span: Span, *, page_bytes: int) -> AsyncGenerator[Sequence[Line]]:  # noqa: ARG002
        """See Feed: there is nothing yet."""
        nothing: Sequence[Line] = ()
        if nothing:
            yield nothing

    async def backwards(self, span: Span, sieve: Sieve, *, page: int) -> AsyncGenerator[Sequence[Place]]:  # noqa: ARG002
        """See Feed: there is nothing yet."""
        nothing: Sequence[Place] = ()
        if nothing:
            yield nothing

    async def live(self) -> AsyncGenerator[Sequence[Line]]:
        """See Feed."""
        feed = await self._begin()
        if feed is None:
            return
        self._found = feed
        # From its beginning, whatever has come until now.
        feed.skip(self.place or (0.0, 0))
        async with aclosing(feed.live()) as pages:
            async for lines in pages:
                yield lines

    async def _begin(self) -> Feed | None:
        """Wait for the log; None if the task is over without one."""
        context, task, container = self._context, self._task, self._container
        shipping = task.spec.container(container).shipping
        waited = 0.0
        while True:
            stream = None
            begun, over = _begun(context, task, container), stopped(context, task, container)
            if begun and shipping is not None:
                with suppress(StoreUnavailable):
                    stream = await _find(context, task, container, shipping)
            if stream is not None and (stream.next_number > 1 or stream.ended):
                return StoreFeed(context, task, container, stream)
            if not (begun and connected(context, task)):
                if over:
                    return None
            elif shipping is None or (waited >= _SETTLE_S and (over or stream is None)):
                return HostFeed(context, self._read_logs, task, container)
            else:
                waited += _LOOK_S
            await asyncio.sleep(_LOOK_S)
