"""Cutting what goes to the control plane into frames of a bounded size. Pure."""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec.structs import replace

from homeport.protocol import LogChunk, TaskReport

__all__ = ["FRAME_BYTES", "encode_reports", "split_chunk", "split_story"]

#: The size aimed at. The control plane takes frames up to four times as large, so one big report still fits.
FRAME_BYTES: Final = 256 * 1024
#: The largest report sent; the control plane would end the session over a frame of 1 MiB.
MAX_REPORT_BYTES: Final = 900 * 1024
#: Story lines in one report. A host that was cut off for days may have more to tell; it tells it in several reports.
STORY_LINES: Final = 100
#: Characters in one chunk of a log. JSON may need six bytes for one, so this stays below the largest frame as well.
CHUNK_CHARACTERS: Final = 128 * 1024

_encoder: Final = msgspec.json.Encoder()


def encode_reports(reports: Iterable[TaskReport]) -> Iterator[bytes]:
    """Encode reports as `Reports` frames, as few as their size allows. Reports of one task keep their order."""
    batch: list[bytes] = []
    size = 0
    tasks: set[str] = set()
    for report in reports:
        for part in split_story(report):
            encoded = _encode_bounded(part)
            # An ack names a seq per task, so one frame holds one report of a task.
            if batch and (size + len(encoded) > FRAME_BYTES or part.task_id in tasks):
                yield _frame(batch)
                batch, size, tasks = [], 0, set()
            batch.append(encoded)
            size += len(encoded)
            tasks.add(part.task_id)
    if batch:
        yield _frame(batch)


def _frame(reports: list[bytes]) -> bytes:
    return b'{"type":"Reports","tasks":[' + b",".join(reports) + b"]}"


def _encode_bounded(report: TaskReport) -> bytes:
    """Encode a report, if need be with only the end of its story: one that can't be sent would hold up all others."""
    encoded = _encoder.encode(report)
    while len(encoded) > MAX_REPORT_BYTES and report.story:
        report = replace(report, story=report.story[len(report.story) // 2 + 1 :])
        encoded = _encoder.encode(report)
    return encoded


def split_story(report: TaskReport) -> Iterator[TaskReport]:
    """Return the report as several if its story is long: each tells all of the state and the next part of the story.

    Story lines are cut between two `seq`s only, since a `seq` tells the control plane what it has; so a part ends with
    the seq of its last line, and the last part with the report's own.
    """
    story = report.story
    while len(story) > STORY_LINES:
        last = story[STORY_LINES - 1][0]
        end = next((index for index, (seq, _) in enumerate(story) if seq > last), len(story))
        if end == len(story) or last >= report.seq:
            break
        yield replace(report, seq=last, story=story[:end])
        story = story[end:]
    yield report if story is report.story else replace(report, story=story)


def split_chunk(chunk: LogChunk) -> Iterator[LogChunk]:
    """Return the chunk as several if it is large; a line longer than a chunk may be is cut into pieces."""
    part: list[tuple[float, str, str]] = []
    size = 0
    for at, stream, text in chunk.lines:
        for start in range(0, max(len(text), 1), CHUNK_CHARACTERS):
            piece = text[start : start + CHUNK_CHARACTERS]
            if part and size + len(piece) > CHUNK_CHARACTERS:
                yield LogChunk(request_id=chunk.request_id, lines=tuple(part))
                part, size = [], 0
            part.append((at, stream, piece))
            size += len(piece) + 64
    yield replace(chunk, lines=tuple(part))
