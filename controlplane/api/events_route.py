"""`GET /homeport/v1/events`: the event stream as server-sent events, while they come. Signed, service `homeport`.

    GET /homeport/v1/events[?after=NUMBER|since=EPOCH][&cluster=][&service=][&task=][&type=...][&pattern=JSON][&follow=]
    id: 1234
    event: ECS Task State Change
    data: {"version": "0", "id": "...", "detail-type": "ECS Task State Change", ...}

It begins behind the number that `after` or a Last-Event-ID header gives, or else with what comes from now on. A number
whose successors are gone is answered with 410, EventsExpired, and the number of the oldest event that is kept; what
retention takes from a reader that is under way is told by an event `homeport.gap`. A comment now and then shows that
the stream lives, with the number that has been reached, so that a reader who wants little doesn't fall behind.

Nothing is held for a reader but one page of events: a slow one reads on from the store, and one that reads nothing at
all is cut off.
"""

import asyncio
import math
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

from controlplane.api.errors import ApiError, InvalidParameterException
from controlplane.api.readers import Readers
from controlplane.api.server import FrontDoor
from controlplane.events.api import NumberedEvent
from controlplane.events.feed import JournalFeed, Scanned
from controlplane.events.pattern import InvalidPattern, Pattern, compile_pattern
from controlplane.events.selection import KINDS, Selection
from homeport.errors import JournalError

__all__ = ["KEEP_ALIVE_S", "PATH", "EventStreams"]

PATH: Final = "/homeport/v1/events"

#: After this long without an event a comment is sent, which finds out whether the reader is still there.
KEEP_ALIVE_S: Final = 15.0
#: What comes within this time after an event is sent with it: busy times cost each reader a few reads per second.
_GATHER_S: Final = 0.05
#: Events read at a time, and looked through at a time where few are wanted: a few milliseconds each.
_PAGE: Final = 100
_SCAN: Final = 1000
#: A reader that has not taken anything for this long is gone.
_STALLED_S: Final = 60.0
#: Open streams. Each costs a read and a filter per event.
_MAX_READERS: Final = 100

_encoder: Final = msgspec.json.Encoder()


class _Wanted(NamedTuple):
    """What a request asks for: events behind a number, and whether to go on when there are no more."""

    after: int
    selection: Selection
    follow: bool


class EventStreams:
    """Serves the stream. Add `routes()` to the server and keep `run()` running: when it ends, readers are cut off."""

    def __init__(self, feed: JournalFeed, front_door: FrontDoor, *, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self._feed = feed
        self._front_door = front_door
        self._keep_alive_s = keep_alive_s
        self._readers = Readers(_MAX_READERS)

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the route."""
        return [web.get(PATH, self._serve)]

    @property
    def reader_count(self) -> int:
        """How many streams are open."""
        return self._readers.count

    async def run(self) -> None:
        """Wait until cancelled, then cut all readers off: they come back to the next control plane."""
        await self._readers.run()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            self._front_door.authenticate_own(request, b"")
            self._readers.check()
            wanted = await self._wanted(request)
        except ApiError as error:
            return self._front_door.error_response(error)
        return await self._readers.serve(request, self._answer(request, wanted))

    async def _answer(self, request: web.Request, wanted: _Wanted) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        with suppress(ConnectionResetError, JournalError):
            await self._stream(_Sink(request, response), wanted)
        return response

    async def _stream(self, sink: "_Sink", wanted: _Wanted) -> None:
        """Write what is wanted until the reader has gone or, unless it follows, there is no more."""
        cursor = wanted.after
        await sink.write(_mark(cursor))
        while True:
            found = await self._next(cursor, wanted.selection)
            if found.last > cursor:
                gap = b"" if found.first == cursor + 1 else _gap(cursor, found.first)
                cursor = found.last
                await sink.write(gap + b"".join(_event(e) for e in found.events if wanted.selection.wants(e.document)))
            elif not wanted.follow:
                return
            elif await self._more(cursor):
                await asyncio.sleep(_GATHER_S)
            else:
                await sink.write(_mark(cursor))

    async def _next(self, cursor: int, selection: Selection) -> Scanned:
        """Return some of what comes behind `cursor`. History that can't be wanted isn't rendered."""
        if selection.is_narrow and self._feed.last - cursor > _PAGE:
            return await self._feed.scan(cursor, limit=_SCAN, may=selection.may_want)
        page = await self._feed.read(cursor, limit=_PAGE)
        return Scanned(page[0].number, page[-1].number, page) if page else Scanned(cursor + 1, cursor, ())

    async def _more(self, cursor: int) -> bool:
        """Wait for more behind `cursor`; False if none has come for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._keep_alive_s):
                await self._feed.wait(cursor)
                return True
        return False

    # ------------------------------------------------------------ the request

    async def _wanted(self, request: web.Request) -> _Wanted:
        """Read the request. Raises ApiError."""
        query = request.query
        types = [name for text in query.getall("type", ()) for name in KINDS.get(text, (text,))]
        cluster, _, service = query.get("service", "").rpartition("/")
        selection = Selection(
            cluster=(query.get("cluster") or ("" if cluster.endswith(":service") else cluster)).rpartition("/")[2],
            service=service,
            task=query.get("task", "").rpartition("/")[2],
            types=frozenset(types),
            pattern=_pattern(query.get("pattern")),
        )
        return _Wanted(await self._place(request), selection, follow=query.get("follow", "true") != "false")

    async def _place(self, request: web.Request) -> int:
        """Return the number behind which to begin. Raises ApiError if what follows it is gone or can't be known."""
        query = request.query
        text = request.headers.get("Last-Event-ID") or query.get("after")
        if text is None:
            return self._feed.last if "since" not in query else await self._feed.before(_seconds(query["since"]))
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise InvalidParameterException(f"after must be the number of an event, but was '{text:.100}'.")
        after = int(text)
        oldest = await self._feed.oldest()
        if after == 0:
            return oldest - 1
        if after < oldest - 1:
            raise ApiError(
                f"The events behind {after} are gone; the oldest that is kept is {oldest}: read on with "
                f"after={oldest - 1}, and take what is missing from the present state.",
                code="EventsExpired",
                status=410,
            )
        if after > self._feed.last:
            raise ApiError(
                f"There has been no event {after} yet, the last one is {self._feed.last}: the control plane may have "
                "been restored from a backup. Begin anew, without a number.",
                code="EventsUnknown",
                status=410,
            )
        return after


class _Sink(NamedTuple):
    """Where a stream is written to."""

    request: web.Request
    response: web.StreamResponse

    async def write(self, text: bytes) -> None:
        """Write, and wait while the reader is slow. Raises ConnectionResetError if it has gone, or takes nothing."""
        if not text:
            return
        try:
            async with asyncio.timeout(_STALLED_S):
                await self.response.write(text)
        except TimeoutError:
            if self.request.transport is not None:
                self.request.transport.abort()
            raise ConnectionResetError("the reader takes nothing") from None


def _pattern(text: str | None) -> Pattern | None:
    if text is None:
        return None
    try:
        return compile_pattern(text)
    except InvalidPattern as error:
        raise ApiError(f"Event pattern is not valid. Reason: {error}", code="InvalidEventPatternException") from error


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InvalidParameterException(f"since must be a time in epoch seconds, but was '{text:.100}'.")
    return seconds


def _event(event: NumberedEvent) -> bytes:
    # A detail type from outside must not end its line.
    name = " ".join(str(event.document["detail-type"]).split())
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.number, name.encode(), _encoder.encode(event.document))


def _mark(cursor: int) -> bytes:
    """A comment, and the number to come back with: without data it isn't an event to the reader."""
    return b": %d is reached\nid: %d\n\n" % (cursor, cursor)


def _gap(after: int, oldest: int) -> bytes:
    told = _encoder.encode({"after": after, "oldest": oldest})
    return b"id: %d\nevent: homeport.gap\ndata: %s\n\n" % (oldest - 1, told)
