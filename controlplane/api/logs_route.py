"""`/homeport/v1/logs`: containers' logs as lines of JSON, from the log store or their hosts; followed, as they come.

    GET /homeport/v1/logs?task=TASK | service=NAME[&cluster=NAME]        signed, service `homeport`
        [&container=NAME] [&follow=true] [&tail=100] [&since=EPOCH] [&until=EPOCH]
        [&grep=RE2] [&stream=stdout|stderr] [&all=true]
    {"at": 1760000000.123, "stream": "stdout", "text": "hello", "task": ID, "container": "web", "number": 17}
    {"note": "the host h1 is not connected ..."}                         something to be said besides
    {"error": "the host's session ended"}                                only last, if it broke off

With `resumable=true` a log begins with `{"began": EPOCH, "marks": [[task, container, at, number], ...]}`: POSTed to the
same query, with the marks of what came since, it goes on where the reader was cut off.

A slow reader slows its own log down and nothing else. An empty line now and then shows that the reader is still there.
Errors that come before the first line are answered in ECS's shape.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec
from aiohttp import web

from controlplane.api.body import read_body
from controlplane.api.errors import ApiError
from controlplane.api.logview.host_feed import ReadLogs
from controlplane.api.logview.model import FeedBroken
from controlplane.api.logview.reading import Item, Reading
from controlplane.api.logview.request import parse
from controlplane.api.readers import Readers
from controlplane.api.server import FrontDoor
from controlplane.context import Context

__all__ = ["KEEP_ALIVE_S", "PATH", "LogStreams"]

PATH: Final = "/homeport/v1/logs"

#: After this long without a line an empty one is sent, which finds out whether the reader is still there.
KEEP_ALIVE_S: Final = 15.0
#: Readers at a time. One may hold some 10 MiB.
_MAX_READERS: Final = 100
_encoder: Final = msgspec.json.Encoder()


class _Failure(msgspec.Struct, frozen=True):
    """The last line of a log that broke off."""

    error: str


#: What is written next; a _Failure or None is the end.
_Batch = Sequence[Item] | _Failure | None


class LogStreams:
    """Serves logs. Add `routes()` to the server and keep `run()` running: when it ends, readers are cut off.

    `read_logs`: how a host is asked for a log (`FleetHub.read_logs`).
    """

    def __init__(
        self, context: Context, front_door: FrontDoor, read_logs: ReadLogs, *, keep_alive_s: float = KEEP_ALIVE_S
    ) -> None:
        self._context = context
        self._front_door = front_door
        self._read_logs = read_logs
        self._keep_alive_s = keep_alive_s
        self._readers = Readers(_MAX_READERS)

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the routes."""
        return [web.get(PATH, self._serve), web.post(PATH, self._serve)]

    async def run(self) -> None:
        """Wait until cancelled, then cut all readers off: those that can, come back to the next control plane."""
        await self._readers.run()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await read_body(request)
            self._front_door.authenticate_own(request, body)
            self._readers.check()
            subject, wanted = await parse(self._context, request.query, body)
        except ApiError as error:
            return self._front_door.error_response(error)
        # What was read may come from what isn't durable yet: that a task is there at all.
        await self._context.state.durable()
        reading = Reading(self._context, self._read_logs, subject, wanted)
        return await self._readers.serve(request, self._stream(request, reading))

    async def _stream(self, request: web.Request, reading: Reading) -> web.StreamResponse:
        queue: asyncio.Queue[_Batch] = asyncio.Queue(1)
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(_read(reading, queue))
            try:
                return await _answer(request, queue, self._front_door, self._keep_alive_s)
            finally:
                reader.cancel()


async def _read(reading: Reading, queue: "asyncio.Queue[_Batch]") -> None:
    """Move what is read into the queue. Cancelled, it tells the hosts that nobody reads any more."""
    try:
        await reading.run(queue.put)
    except FeedBroken as error:
        await queue.put(_Failure(str(error)))
    else:
        await queue.put(None)


async def _next(queue: "asyncio.Queue[_Batch]", keep_alive_s: float) -> _Batch:
    """Return the next batch, an empty one if none has come for `keep_alive_s`."""
    try:
        async with asyncio.timeout(keep_alive_s):
            return await queue.get()
    except TimeoutError:
        return ()


async def _answer(
    request: web.Request, queue: "asyncio.Queue[_Batch]", front_door: FrontDoor, keep_alive_s: float
) -> web.StreamResponse:
    """Write the log to the reader until it ends or the reader has gone."""
    batch = await _next(queue, keep_alive_s)
    if isinstance(batch, _Failure):
        return front_door.error_response(ApiError(f"The log can't be read: {batch.error}.", code="LogUnavailable"))
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    with suppress(ConnectionResetError):
        while batch is not None and not isinstance(batch, _Failure):
            await response.write(_encoder.encode_lines(batch) if batch else b"\n")
            batch = await _next(queue, keep_alive_s)
        if batch is not None:
            await response.write(_encoder.encode_lines([batch]))
        await response.write_eof()
    return response
