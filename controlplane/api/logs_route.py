"""`GET /homeport/v1/logs`: a container's log, straight from its host, as lines of JSON while they come.

    GET /homeport/v1/logs?task=TASK[&container=NAME][&follow=true][&tail=100][&since=EPOCH]   signed, service `homeport`
    {"at": 1760000000.123, "stream": "stdout", "text": "hello"}
    {"error": "the host's session ended"}                                                     only last, if it broke off

Nothing is kept here: a slow reader slows its own log down. An empty line now and then shows that the reader is still
there. Errors that come before the first line are answered in ECS's shape.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Final, NamedTuple, Protocol, cast

import msgspec
from aiohttp import web

from controlplane.api.errors import ApiError, InvalidParameterException
from controlplane.api.homeport_lookup import find_live_task
from controlplane.api.server import FrontDoor
from controlplane.context import Context
from controlplane.state.records import TaskRecord
from homeport.ids import TaskId
from homeport.protocol import LogChunk

__all__ = ["KEEP_ALIVE_S", "PATH", "ReadLogs", "logs_routes"]

PATH: Final = "/homeport/v1/logs"

#: After this long without a line an empty one is sent, which finds out whether the reader is still there.
KEEP_ALIVE_S: Final = 15.0
_encoder: Final = msgspec.json.Encoder()


class ReadLogs(Protocol):
    """`FleetHub.read_logs`: the chunks of a container's log; the last one has `end` set."""

    def __call__(
        self, task_id: TaskId, container: str, *, follow: bool, tail: int | None, since: float | None
    ) -> AsyncIterator[LogChunk]:
        """Yield the chunks. Closing the iterator stops the host."""
        ...


class _Wanted(NamedTuple):
    """What a request asks for."""

    task: TaskRecord
    container: str
    follow: bool
    tail: int | None
    since: float | None


def logs_routes(
    context: Context, front_door: FrontDoor, read_logs: ReadLogs, *, keep_alive_s: float = KEEP_ALIVE_S
) -> list[web.AbstractRouteDef]:
    """Return the route. `read_logs`: where logs come from (`FleetHub.read_logs`)."""

    async def logs(request: web.Request) -> web.StreamResponse:
        try:
            identity = front_door.authenticate(request, b"")
            if identity.service != "homeport":
                raise ApiError(
                    "Credential should be scoped to correct service: 'homeport'.", code="InvalidSignatureException"
                )
            wanted = _wanted(context, request)
        except ApiError as error:
            return front_door.error_response(error)
        chunks = read_logs(wanted.task.id, wanted.container, follow=wanted.follow, tail=wanted.tail, since=wanted.since)
        queue: asyncio.Queue[LogChunk] = asyncio.Queue(1)
        async with asyncio.TaskGroup() as group:
            pump = group.create_task(_pump(chunks, queue))
            try:
                return await _answer(request, _Chunks(queue, keep_alive_s), front_door)
            finally:
                pump.cancel()

    return [web.get(PATH, logs)]


def _wanted(context: Context, request: web.Request) -> _Wanted:
    """Read the query. Raises ApiError, also if the task never began or has no such container."""
    query = request.query
    task = find_live_task(context, query.get("task", ""))
    if task.instance_id is None:
        raise InvalidParameterException(f"The task {task.id} has no log: it isn't on a host yet.")
    return _Wanted(
        task=task,
        container=_container(task, query.get("container")),
        follow=query.get("follow", "false") == "true",
        tail=_count(query.get("tail")),
        since=_seconds(query.get("since")),
    )


def _container(task: TaskRecord, name: str | None) -> str:
    names = [container.name for container in task.spec.containers]
    if name in names:
        return name
    if name:
        raise InvalidParameterException(f"The task has no container '{name:.100}'; it has: {', '.join(names)}.")
    if len(names) > 1:
        raise InvalidParameterException(f"The task has several containers, name one of them: {', '.join(names)}.")
    return names[0]


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidParameterException(f"tail must be a number of lines from 0 to 999999999, but was '{text:.100}'.")
    return int(text)


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InvalidParameterException(f"since must be a time in epoch seconds, but was '{text:.100}'.")
    return seconds


async def _pump(chunks: AsyncIterator[LogChunk], queue: "asyncio.Queue[LogChunk]") -> None:
    """Move chunks into the queue. However this ends, the host is told that nobody reads any more."""
    async with aclosing(cast("AsyncGenerator[LogChunk, None]", chunks)):
        async for chunk in chunks:
            await queue.put(chunk)
            if chunk.end:
                return
    await queue.put(LogChunk(request_id="", end=True, error="the log broke off"))


class _Chunks(NamedTuple):
    """Chunks as they come, with a None now and then while none comes."""

    queue: "asyncio.Queue[LogChunk]"
    keep_alive_s: float

    async def next(self) -> LogChunk | None:
        """Return the next chunk, or None if none has come for `keep_alive_s`."""
        try:
            async with asyncio.timeout(self.keep_alive_s):
                return await self.queue.get()
        except TimeoutError:
            return None


async def _answer(request: web.Request, chunks: _Chunks, front_door: FrontDoor) -> web.StreamResponse:
    """Write the log to the reader until it ends or the reader has gone."""
    chunk = await chunks.next()
    if chunk is not None and chunk.error and not chunk.lines:
        return front_door.error_response(ApiError(f"The log can't be read: {chunk.error}.", code="LogUnavailable"))
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    with suppress(ConnectionResetError):
        while chunk is None or not chunk.end:
            await response.write(_render(chunk))
            chunk = await chunks.next()
        await response.write(_render(chunk))
        await response.write_eof()
    return response


def _render(chunk: LogChunk | None) -> bytes:
    if chunk is None:
        return b"\n"
    lines: list[object] = [{"at": at, "stream": stream, "text": text} for at, stream, text in chunk.lines]
    if chunk.error:
        lines.append({"error": chunk.error})
    return _encoder.encode_lines(lines)
