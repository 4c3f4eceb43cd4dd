"""From records to events, and from events to frames."""

import random
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engine.output import Lost, Record, Stream
from agent.logs.batches import BATCH_BYTES, frames
from agent.logs.events import MAX_EVENT_BYTES, Event, EventMaker
from agent.logs.multiline import beginning
from homeport.protocol import LOG_BATCH_BYTES, LogBatch, LogKind

SECOND = 1_000_000_000


def record(text: str, number: int = 1, stream: Stream = "stdout") -> Record:
    return Record(number * SECOND, stream, text, number)


def texts(events: object) -> list[str]:
    return [event.text for event in events]  # type: ignore[attr-defined]


def test_a_line_is_an_event_with_its_time_and_stream() -> None:
    line = record("oops\r\n", 3, "stderr")
    assert list(EventMaker().feed([line], 0.0)) == [Event(3000, LogKind.STDERR, "oops", line.mark)]


def test_the_parts_of_a_line_are_put_together_and_the_other_stream_waits_for_them() -> None:
    maker = EventMaker()
    parts = [record("a" * 10, 1), record("other\n", 2, "stderr"), record("b" * 10, 3)]
    assert list(maker.feed(parts, 0.0)) == []
    last = record("c\n", 4)
    events = list(maker.feed([last, record("next\n", 5)], 0.0))
    assert texts(events) == ["a" * 10 + "b" * 10 + "c", "other", "next"]
    # Behind the first of them there is no place where everything is still to come.
    assert [event.mark for event in events[:2]] == [None, last.mark]
    assert maker.due is None


def test_a_line_that_gets_no_end_is_let_go_after_a_while() -> None:
    maker = EventMaker()
    part = record("no end")
    assert list(maker.feed([part], 10.0)) == []
    assert maker.due == 11.0
    assert list(maker.flush()) == [Event(1000, LogKind.STDOUT, "no end", part.mark)]
    assert list(maker.flush()) == []


def test_an_endless_line_comes_in_pieces_of_bounded_size() -> None:
    maker = EventMaker()
    parts = [record("ü" * 8192, number) for number in range(1, 101)]
    events = [*maker.feed(parts, 0.0), *maker.flush()]
    assert "".join(texts(events)) == "ü" * 819200
    assert max(len(event.text.encode()) for event in events) <= MAX_EVENT_BYTES
    assert all(event.mark is not None for event in events)


def test_what_is_missing_is_an_event_in_its_place() -> None:
    maker = EventMaker()
    behind = record("behind\n", 90)
    events = list(maker.feed([record("cut", 30), Lost(30 * SECOND, "why not"), behind], 0.0))
    assert texts(events) == [
        "cut",
        "Output is missing here, from 1970-01-01T00:00:30.000Z up to 1970-01-01T00:01:30.000Z: why not",
        "behind",
    ]
    assert events[1] == Event(90_000, LogKind.GAP, events[1].text, None)


# ---------------------------------------------------------------- events of several lines


def test_a_line_that_matches_begins_an_event() -> None:
    maker = EventMaker(beginning(r"^\d{4}-"))
    lines = ["2026-11-22 one\n", "  more\n", "  of it\n", "2026-11-23 two\n"]
    records = [record(text, number) for number, text in enumerate(lines, 1)]
    events = list(maker.feed(records, 100.0))
    assert events == [Event(1000, LogKind.STDOUT, "2026-11-22 one\n  more\n  of it", records[2].mark)]
    assert maker.due == 105.0
    assert texts(maker.flush()) == ["2026-11-23 two"]


def test_lines_before_the_first_match_are_an_event() -> None:
    maker = EventMaker(beginning("^A"))
    assert texts([*maker.feed([record("x\n"), record("y\n"), record("A\n")], 0.0), *maker.flush()]) == ["x\ny", "A"]


def test_an_event_of_many_lines_is_cut_when_it_is_full() -> None:
    maker = EventMaker(beginning("^never$"))
    records = [record("z" * 999 + "\n", number) for number in range(1, 601)]
    events = [*maker.feed(records, 0.0), *maker.flush()]
    assert len(events) == 3
    assert max(len(event.text.encode()) for event in events) <= MAX_EVENT_BYTES
    assert "\n".join(texts(events)) == "\n".join(["z" * 999] * 600)


def test_a_pattern_that_cannot_be_used_leaves_every_line_an_event() -> None:
    assert beginning("(unclosed") is None
    assert beginning("(?=look)") is None
    assert beginning("") is None


# ---------------------------------------------------------------- frames


def decoded(data: bytes) -> LogBatch:
    return msgspec.json.decode(zlib.decompress(data), type=LogBatch)


@given(st.integers(0, 2**32))
def test_frames_carry_every_event_once_and_end_where_there_is_a_mark(seed: int) -> None:
    rng = random.Random(seed)
    events = []
    for number in range(1, rng.randint(2, 60)):
        mark = record("x\n", number).mark if rng.random() < 0.8 else None
        events.append(Event(number, LogKind.STDOUT, rng.choice("a\x00ü") * rng.randint(0, 9000), mark))
    events.append(Event(99, LogKind.STDERR, "last", record("x\n", 99).mark))
    made = list(frames(7, 5, events, position="before", end=True))
    batches = [decoded(frame.data) for frame in made]
    assert [each for batch in batches for each in batch.events] == [(e.at, e.kind, e.text) for e in events]
    following = 5
    by_number = dict(enumerate(events, start=5))
    for frame, batch in zip(made, batches, strict=True):
        assert batch.channel == 7
        assert batch.first == frame.first == following
        following = frame.next
        assert batch.position == str(by_number[following - 1].mark)
        assert frame.size <= LOG_BATCH_BYTES
        assert frame.size == len(zlib.decompress(frame.data))
    assert following == 5 + len(events)
    assert [batch.end for batch in batches] == [False] * (len(batches) - 1) + [True]


def test_batches_are_as_large_as_is_aimed_at() -> None:
    events = [Event(n, LogKind.STDOUT, "x" * 1000, record("x\n", n).mark) for n in range(1000)]
    sizes = [frame.size for frame in frames(1, 1, events, position="", end=False)]
    assert all(BATCH_BYTES * 0.9 < size < BATCH_BYTES * 1.1 for size in sizes[:-1])


@pytest.mark.parametrize("character", ["\x00", "\n", "ü", '"'])
def test_whatever_is_held_back_fits_into_a_batch(character: str) -> None:
    """Records of nothing but what JSON makes six times as long, and records of nothing."""
    maker = EventMaker()
    flood = [record(character * 16384, number) for number in range(2, 40)]
    short = [record("\n", number, "stderr") for number in range(40, 30_000)]
    events = [*maker.feed([record("begun", 1), *flood, *short], 0.0), *maker.flush()]
    for frame in frames(1, 1, events, position="", end=True):
        assert frame.size <= LOG_BATCH_BYTES


def test_an_end_without_events_is_a_frame() -> None:
    (frame,) = frames(1, 8, [], position="p", end=True)
    assert decoded(frame.data) == LogBatch(channel=1, first=8, events=(), position="p", end=True)
    assert list(frames(1, 8, [], position="p", end=False)) == []
