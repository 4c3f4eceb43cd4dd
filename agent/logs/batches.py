"""From events to frames: each a LogBatch, compressed. Pure."""

import zlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from agent.engine.output import Mark
from agent.logs.events import Event
from homeport.protocol import LOG_BATCH_BYTES

__all__ = ["BATCH_BYTES", "Frame", "frames"]

#: The size aimed at, as JSON.
BATCH_BYTES: Final = LOG_BATCH_BYTES // 4
#: Best for text that is written once and read soon; the store compresses anew.
_LEVEL: Final = 1

_encode: Final = msgspec.json.Encoder().encode


class Frame(NamedTuple):
    """A batch as it is sent. Its events are numbered from `first` up to below `next`. `oldest`: epoch milliseconds."""

    first: int
    next: int
    data: bytes
    size: int
    lines: int
    gaps: int
    oldest: int


def frames(channel: int, first: int, events: Iterable[Event], *, position: str, end: bool) -> Iterator[Frame]:
    """Yield the frames that carry these events, as few as their size allows.

    The last event has a mark. `position`: where the source stands before the first one. `end`: this is all there is;
    also without events there is a frame then.
    """
    batch: list[bytes] = []
    ready = size = 0
    held: list[Event] = []
    for event in events:
        encoded = _encode((event.at, event.kind, event.text))
        if ready and size + len(encoded) > BATCH_BYTES:
            yield _frame(channel, first, batch[:ready], held[:ready], position, end=False)
            first += ready
            del batch[:ready], held[:ready]
            size = sum(map(len, batch))
            ready = 0
        batch.append(encoded)
        held.append(event)
        size += len(encoded) + 1
        if event.mark is not None:
            ready, position = len(batch), _text(event.mark)
    assert ready == len(batch), "the last event has a mark"
    if batch or end:
        yield _frame(channel, first, batch, held, position, end=end)


def _text(mark: Mark) -> str:
    return str(mark)


def _frame(channel: int, first: int, batch: list[bytes], events: list[Event], position: str, *, end: bool) -> Frame:
    head = b'{"type":"LogBatch","channel":%d,"first":%d,"position":%s,' % (channel, first, _encode(position))
    body = head + (b'"end":true,' if end else b"") + b'"events":[' + b",".join(batch) + b"]}"
    gaps = sum(event.kind == 2 for event in events)
    return Frame(
        first=first,
        next=first + len(batch),
        data=zlib.compress(body, _LEVEL),
        size=len(body),
        lines=len(events) - gaps,
        gaps=gaps,
        oldest=min((event.at for event in events), default=0),
    )
