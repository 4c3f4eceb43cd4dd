"""From records to events: parts of lines are put together, and lines to events where a pattern says so. Pure.

An event whose `mark` is None can't be the last of a batch: what is behind it has been begun already.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from agent.engine.output import Lost, Mark, Record
from homeport.protocol import LogKind

__all__ = ["MAX_EVENT_BYTES", "Event", "EventMaker", "gap"]

#: The longest event of CloudWatch's, 256 KiB with 26 bytes of its own.
MAX_EVENT_BYTES: Final = 256 * 1024 - 26
#: What is held back may take this much as JSON, so that it fits into one batch whatever is in it.
_MAX_HELD: Final = 768 * 1024
#: Seconds that the rest of a line is waited for, and further lines of an event of several (as Docker's awslogs).
_LINE_S: Final = 1.0
_EVENT_S: Final = 5.0

#: What JSON adds to an event's text.
_EVENT_JSON: Final = 32
_NS_PER_MS: Final = 1_000_000
_KINDS: Final = {"stdout": LogKind.STDOUT, "stderr": LogKind.STDERR}
_encode: Final = msgspec.json.Encoder().encode


class Event(NamedTuple):
    """An event to be shipped. `at`: epoch milliseconds. `mark`: where its source stands behind it."""

    at: int
    kind: LogKind
    text: str
    mark: Mark | None


class _Line(NamedTuple):
    at: int
    kind: LogKind
    parts: list[str]


class _Size:
    """How large what is held back has become, as UTF-8 and as JSON."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._plain = self._json = 0

    def fits(self, text: str) -> bool:
        """Tell whether this fits, too; the first always does."""
        plain, encoded = _sizes(text)
        return not self._plain or (self._plain + plain <= MAX_EVENT_BYTES and self._json + encoded <= _MAX_HELD)

    def add(self, text: str) -> None:
        plain, encoded = _sizes(text)
        self._plain += plain + 1
        self._json += encoded


def _sizes(text: str) -> tuple[int, int]:
    return len(text.encode()), len(_encode(text)) + _EVENT_JSON


class EventMaker:
    """Makes one container's events. `begins`: whether a line begins an event; None: each one is an event."""

    def __init__(self, begins: Callable[[str], bool] | None = None) -> None:
        self._begins = begins
        #: Lines since one was left without its end, in the order of their beginnings; those (by kind) that still are.
        self._lines: list[_Line] = []
        self._unended: dict[LogKind, _Line] = {}
        self._lines_mark: Mark | None = None
        self._lines_size = _Size()
        self._lines_due: float | None = None
        #: The event that further lines may belong to.
        self._event: _Line | None = None
        self._event_mark: Mark | None = None
        self._event_size = _Size()
        self._event_due: float | None = None

    @property
    def due(self) -> float | None:
        """When to `flush` if nothing comes until then (monotonic seconds); None: nothing is held back."""
        return min((due for due in (self._lines_due, self._event_due) if due is not None), default=None)

    def feed(self, items: Sequence[Record | Lost], now: float) -> Iterator[Event]:
        """Take what was read; yield the events that are complete. `now`: monotonic seconds."""
        for position, item in enumerate(items):
            if isinstance(item, Lost):
                following = items[position + 1]
                assert isinstance(following, Record), "what is missing is told when it is known until when"
                yield from self.flush()
                yield gap(item, following.at_ns)
            elif not self._lines and item.text.endswith("\n"):
                yield from self._line(item.at_ns // _NS_PER_MS, _KINDS[item.stream], item.text, item.mark, now)
            else:
                yield from self._part(item, now)

    def flush(self) -> Iterator[Event]:
        """Yield what is held back, as it is."""
        yield from self._release(0.0)
        yield from self._close()

    # ------------------------------------------------------------ lines of several records

    def _part(self, record: Record, now: float) -> Iterator[Event]:
        """Take a record while a line has no end.

        Lines of the other stream wait meanwhile, so that there is one place behind which everything is still to come.
        """
        if not self._lines_size.fits(record.text):
            yield from self._release(now)
        kind = _KINDS[record.stream]
        line = self._unended.get(kind)
        if line is None:
            line = self._unended[kind] = _Line(record.at_ns // _NS_PER_MS, kind, [])
            self._lines.append(line)
        line.parts.append(record.text)
        self._lines_size.add(record.text)
        self._lines_mark = record.mark
        if record.text.endswith("\n"):
            del self._unended[kind]
        if not self._unended:
            yield from self._release(now)
        elif self._lines_due is None:
            self._lines_due = now + _LINE_S

    def _release(self, now: float) -> Iterator[Event]:
        lines, mark = self._lines, self._lines_mark
        self._lines, self._unended, self._lines_mark, self._lines_due = [], {}, None, None
        self._lines_size.clear()
        for line in lines:
            yield from self._line(line.at, line.kind, "".join(line.parts), mark if line is lines[-1] else None, now)

    # ------------------------------------------------------------ events of several lines

    def _line(self, at: int, kind: LogKind, text: str, mark: Mark | None, now: float) -> Iterator[Event]:
        text = text.removesuffix("\n").removesuffix("\r")
        if self._begins is None:
            yield Event(at, kind, text, mark)
            return
        if self._event is None or self._begins(text) or not self._event_size.fits(text):
            yield from self._close()
            self._event = _Line(at, kind, [])
        self._event.parts.append(text)
        self._event_size.add(text)
        self._event_mark = mark
        self._event_due = now + _EVENT_S

    def _close(self) -> Iterator[Event]:
        event, mark = self._event, self._event_mark
        self._event, self._event_mark, self._event_due = None, None, None
        self._event_size.clear()
        if event is not None:
            yield Event(event.at, event.kind, "\n".join(event.parts), mark)


def gap(lost: Lost, until_ns: int, mark: Mark | None = None) -> Event:
    """Return the event that says what is missing."""
    since = f"from {_time(lost.since_ns)} " if lost.since_ns else ""
    verb = "is" if lost.sure else "may be"
    text = f"Output {verb} missing here, {since}up to {_time(until_ns)}: {lost.why}"
    return Event(until_ns // _NS_PER_MS, LogKind.GAP, text, mark)


def _time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
