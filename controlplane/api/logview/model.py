"""What a reader asks for, and what it is answered with. Times are epoch seconds, those of the store milliseconds."""

import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol

import msgspec

from controlplane.logs.api import EventKey, StoredEvent
from homeport.protocol import LogKind

__all__ = [
    "FAR_S",
    "Feed",
    "FeedBroken",
    "Line",
    "Mark",
    "Note",
    "Place",
    "Sieve",
    "Span",
    "Standing",
    "Wanted",
    "line_of",
]

#: Where a line is in its container's log: (time, number), with number 0 for lines that aren't in the store.
Place = tuple[float, int]
#: Seconds beyond which a time is no time.
FAR_S: Final = 1e11
_STREAMS: Final = {LogKind.STDOUT: "stdout", LogKind.STDERR: "stderr", LogKind.GAP: "gap"}


class Line(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A line of a container, or an event of several; `stream` gap: what is missing here, and why.

    `number`: the event's in its stream, 0 if it came straight from the host. `matches`: where the text has what was
    looked for, as (begin, end).
    """

    at: float
    stream: str
    text: str
    task: str
    container: str
    number: int = 0
    matches: tuple[tuple[int, int], ...] = ()


class Note(msgspec.Struct, frozen=True):
    """Something to be said besides the log."""

    note: str


class Mark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Behind which line of a container a reader stands."""

    task: str
    container: str
    at: Annotated[float, msgspec.Meta(ge=-FAR_S, le=FAR_S)]
    number: Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Standing(msgspec.Struct, frozen=True):
    """Comes first when a log is followed: what to send to go on later, with the marks of the lines that came since.

    `began`: when the reader came. Containers without a mark are read from their beginning, if they have begun since.
    """

    began: float
    marks: tuple[Mark, ...] = ()


class Sieve(NamedTuple):
    """Which lines are wanted. Gaps always are: what is missing might have been. `pattern`: compiled by RE2."""

    pattern: Any = None
    stream: Literal["stdout", "stderr"] | None = None

    def sift(self, lines: Sequence[Line]) -> Sequence[Line]:
        """Return the wanted ones of some lines."""
        return lines if self == _ALL else list(self._sifted(lines))

    def _sifted(self, lines: Sequence[Line]) -> Iterator[Line]:
        for line in lines:
            if line.stream == "gap":
                yield line
            elif self.stream is None or line.stream == self.stream:
                if self.pattern is None:
                    yield line
                elif found := tuple(match.span() for match in self.pattern.finditer(line.text)):
                    yield msgspec.structs.replace(line, matches=found)


_ALL: Final = Sieve()


class Span(NamedTuple):
    """Which part of a log: after the moment `since`, before `until`, behind the line at `after`."""

    since: float | None = None
    until: float | None = None
    after: Place | None = None

    @property
    def start_ms(self) -> int | None:
        """The first millisecond."""
        return None if self.since is None else math.floor(self.since * 1000) + 1

    @property
    def end_ms(self) -> int | None:
        """The first millisecond that isn't in it."""
        return None if self.until is None else math.ceil(self.until * 1000)

    @property
    def after_key(self) -> EventKey | None:
        """`after` as the store has it."""
        return None if self.after is None else (round(self.after[0] * 1000), self.after[1])


class Wanted(NamedTuple):
    """How to read. `tail` None: all; `everything`: of a service, also the tasks that have stopped."""

    container: str | None = None
    follow: bool = False
    tail: int | None = None
    span: Span = Span()
    sieve: Sieve = Sieve()
    everything: bool = False
    #: The reader comes back if it is cut off: tell it with what.
    resumable: bool = False
    #: Where the reader stood when it was cut off.
    resume: Standing | None = None


class FeedBroken(Exception):
    """A container's log can't be read (on). The text, a sentence's part, says why.

    `harmless`: there is none, as is to be expected; nobody has to be told who sees other logs.
    """

    def __init__(self, why: str, *, harmless: bool = False) -> None:
        super().__init__(why)
        self.harmless = harmless


class Feed(Protocol):
    """One container's log. Opened, it stands at its end; whatever yields is closed to stop it early.

    Everything raises FeedBroken.
    """

    #: The last line's time, or None if it isn't known before reading.
    last_at: float | None

    @property
    def place(self) -> Place | None:
        """Behind which line it stands; None if it hasn't begun."""
        ...

    def forwards(self, span: Span, *, page_bytes: int) -> AsyncGenerator[Sequence[Line]]:
        """Yield lines, oldest first, about `page_bytes` at a time."""
        ...

    def backwards(self, span: Span, sieve: Sieve, *, page: int) -> AsyncGenerator[Sequence[Place]]:
        """Yield the places of wanted lines, latest first, about `page` at a time."""
        ...

    def live(self) -> AsyncGenerator[Sequence[Line]]:
        """Yield what comes behind the last line that was read, until the container has stopped for good."""
        ...

    def skip(self, place: Place) -> None:
        """Stand behind the line at this place."""
        ...

    def rest(self) -> str:
        """Tell, once all was read that is here, what is still to come, as a sentence; "" if that was all."""
        ...


def line_of(event: StoredEvent, task: str, container: str) -> Line:
    """Render an event of the store."""
    return Line(event.at / 1000, _STREAMS[event.kind], event.text, task, container, event.number)
