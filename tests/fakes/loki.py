"""A Loki that speaks push, query_range and delete, and refuses what the real one refuses by its defaults.

    async with FakeLoki(clock) as loki:
        address = parse_address(loki.url)

Limits, texts of errors, order and duplicates are those of Loki 3.4, looked up in its source and tried against it.
"""

import base64
import gzip
import re
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web

from homeport.clock import Clock, SystemClock

__all__ = ["FakeLoki", "Line"]

MAX_LINE_BYTES: Final = 256 * 1024
MAX_ENTRIES: Final = 5000
MAX_QUERY_NS: Final = 721 * 3600 * 10**9
MAX_LABELS: Final = 15
MAX_LABEL_VALUE_BYTES: Final = 2048
TOO_OLD_S: Final = 7 * 86400
TOO_NEW_S: Final = 600
FAR_BEHIND_NS: Final = 3600 * 10**9
BURST_BYTES: Final = 6 * 1024 * 1024

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_SELECTOR: Final = re.compile(r"\{(.*)\}")
_MATCHER: Final = re.compile(r'\s*([a-zA-Z_]\w*)\s*(=~|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')

Labels = frozenset[tuple[str, str]]


class Line(NamedTuple):
    """An entry that is kept."""

    ns: int
    line: str
    metadata: tuple[tuple[str, str], ...]


class FakeLoki:
    """See the module. Set the public attributes to have it misbehave."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.streams: dict[Labels, list[Line]] = {}
        #: (HTTP status, text) that every push, or query, is answered with; None: as it should be.
        self.push_answer: tuple[int, str] | None = None
        self.query_answer: tuple[int, str] | None = None
        #: Take this many pushes, and break the connection instead of answering.
        self.unanswered = 0
        #: X-Scope-OrgID and user:password that are demanded; None: none is.
        self.tenant: str | None = None
        self.credentials: str | None = None
        self.deletes = True
        self.deleted: list[dict[str, str]] = []
        #: Number of lines in each push that came, refused ones included.
        self.pushes: list[int] = []
        self.queries: list[dict[str, str]] = []
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def __aenter__(self) -> "FakeLoki":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; on the port of before, if there was one."""
        application = web.Application(client_max_size=100 * 1024 * 1024)
        application.router.add_post("/loki/api/v1/push", self._push)
        application.router.add_get("/loki/api/v1/query_range", self._query)
        application.router.add_post("/loki/api/v1/delete", self._delete)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"loki+http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Stop listening. What was pushed is kept."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def lines(self) -> list[str]:
        """Every line that is kept, by time."""
        return [entry.line for entry in sorted(entry for entries in self.streams.values() for entry in entries)]

    # ------------------------------------------------------------ push

    async def _push(self, request: web.Request) -> web.Response:
        body = await request.read()
        refusal = self._unknown(request)
        if refusal is not None:
            return refusal
        if request.headers.get("Content-Type") != "application/json":
            return web.Response(status=400, text="expected snappy")
        streams = msgspec.json.decode(body if body[:1] == b"{" else gzip.decompress(body))["streams"]
        self.pushes.append(sum(len(stream["values"]) for stream in streams))
        if self.push_answer is not None:
            return web.Response(status=self.push_answer[0], text=self.push_answer[1])
        if sum(len(value[1].encode()) for stream in streams for value in stream["values"]) > BURST_BYTES:
            return web.Response(status=429, text="Ingestion rate limit exceeded for user fake")
        errors = [error for stream in streams for error in self._keep(stream["stream"], stream["values"])]
        if self.unanswered:
            self.unanswered -= 1
            assert request.transport is not None
            request.transport.close()
        if errors:
            return web.Response(status=400, text="\n".join(errors[:10]))
        return web.Response(status=204)

    def _keep(self, labels: dict[str, str], values: Iterable[list[Any]]) -> Iterable[str]:
        """Keep the entries of one stream that can be kept; say why the others can't."""
        key = frozenset(labels.items())
        if not labels or len(labels) > MAX_LABELS or not all(map(_LABEL.fullmatch, labels)):
            yield f"stream '{labels}' has wrong labels"
            return
        if any(len(value.encode()) > MAX_LABEL_VALUE_BYTES for value in labels.values()):
            yield f"stream '{labels}' has label value too long"
            return
        newest = max((entry.ns for entry in self.streams.get(key, ())), default=0)
        for ns, line, *metadata in values:
            assert isinstance(ns, str)
            assert isinstance(line, str)
            entry = Line(int(ns), line, tuple(sorted(metadata[0].items())) if metadata else ())
            assert all(isinstance(value, str) for _, value in entry.metadata)
            problem = self._problem(entry, newest)
            if problem:
                yield f"entry for stream '{labels}' {problem}"
                continue
            kept = self.streams.setdefault(key, [])
            if not any((other.ns, other.line) == (entry.ns, entry.line) for other in kept):
                kept.append(entry)
                newest = max(newest, entry.ns)

    def _problem(self, entry: Line, newest: int) -> str:
        at = entry.ns / 10**9
        if at < self.clock.now() - TOO_OLD_S:
            return f"has timestamp too old: {at}"
        if at > self.clock.now() + TOO_NEW_S:
            return f"has timestamp too new: {at}"
        if len(entry.line.encode()) > MAX_LINE_BYTES:
            return f"Max entry size '{MAX_LINE_BYTES}' bytes exceeded"
        if entry.ns < newest - FAR_BEHIND_NS:
            return f"with timestamp {at} ignored, reason: 'entry too far behind'"
        return ""

    # ------------------------------------------------------------ query and delete

    async def _query(self, request: web.Request) -> web.Response:
        refusal = self._unknown(request)
        if refusal is not None:
            return refusal
        asked = dict(request.query)
        self.queries.append(asked)
        if self.query_answer is not None:
            return web.Response(status=self.query_answer[0], text=self.query_answer[1])
        start, end, limit = int(asked["start"]), int(asked["end"]), int(asked.get("limit", 100))
        if end <= start:
            return web.Response(status=400, text="end timestamp must not be before or equal to start time")
        if end - start > MAX_QUERY_NS:
            return web.Response(status=400, text="the query time range exceeds the limit (query length: ...)")
        if limit > MAX_ENTRIES:
            text = (
                f"max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {MAX_ENTRIES})"
            )
            return web.Response(status=400, text=text)
        matched = [key for key in self.streams if _matches(asked["query"], dict(key))]
        backward = asked.get("direction", "backward") == "backward"
        found = sorted(
            ((entry.ns, place, entry) for place, key in enumerate(matched) for entry in self.streams[key]),
            key=lambda row: row[:2],
            reverse=backward,
        )
        page = [row for row in found if start <= row[0] < end][:limit]
        categorized = request.headers.get("X-Loki-Response-Encoding-Flags") == "categorize-labels"
        return _answer([(dict(matched[place]), entry) for _, place, entry in page], categorized)

    async def _delete(self, request: web.Request) -> web.Response:
        refusal = self._unknown(request)
        if refusal is not None:
            return refusal
        if not self.deletes:
            return web.Response(status=404, text="404 page not found")
        asked = dict(request.query)
        if not all(re.fullmatch(r"\d{10}", asked[name]) for name in ("start", "end")):
            return web.Response(status=400, text="invalid start time: require unix seconds or RFC3339 format")
        if int(asked["end"]) > self.clock.now():
            return web.Response(status=400, text="deletes in the future are not allowed")
        self.deleted.append(asked)
        for key in [key for key in self.streams if _matches(asked["query"], dict(key))]:
            del self.streams[key]
        return web.Response(status=204)

    def _unknown(self, request: web.Request) -> web.Response | None:
        if self.tenant is not None and request.headers.get("X-Scope-OrgID") != self.tenant:
            return web.Response(status=401, text="no org id")
        if self.credentials is not None:
            expected = "Basic " + base64.b64encode(self.credentials.encode()).decode()
            if request.headers.get("Authorization") != expected:
                return web.Response(status=401, text="")
        return None


def _matches(selector: str, labels: dict[str, str]) -> bool:
    whole = _SELECTOR.fullmatch(selector)
    assert whole is not None, selector
    matchers = _MATCHER.findall(whole[1])
    assert "".join(match[0] for match in _MATCHER.finditer(whole[1])) == whole[1], selector
    assert matchers, selector
    return all(
        re.fullmatch(value, labels.get(name, "")) is not None if operator == "=~" else labels.get(name, "") == value
        for name, operator, value in matchers
    )


def _answer(page: list[tuple[dict[str, str], Line]], categorized: bool) -> web.Response:
    """Answer as Loki does: metadata beside the lines if that was asked for, else as labels of the stream."""
    streams: dict[str, dict[str, Any]] = {}
    for labels, entry in page:
        metadata = dict(entry.metadata)
        shown = labels | {"service_name": "unknown_service"} | ({} if categorized else metadata)
        stream = streams.setdefault(repr(sorted(shown.items())), {"stream": shown, "values": []})
        value: list[Any] = [str(entry.ns), entry.line]
        if categorized:
            value.append({"structuredMetadata": {**metadata, "detected_level": "unknown"}} if metadata else {})
        stream["values"].append(value)
    data = {"resultType": "streams", "result": list(streams.values()), "stats": {}}
    body = msgspec.json.encode({"status": "success", "data": data})
    return web.Response(body=body, content_type="application/json")
