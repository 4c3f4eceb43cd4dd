"""Frames of bounded size: nothing is lost, nothing is told twice, whatever is cut."""

import itertools

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.framing import CHUNK_CHARACTERS, FRAME_BYTES, STORY_LINES, encode_reports, split_chunk, split_story
from homeport.ids import TaskId
from homeport.protocol import AgentMessage, LogChunk, Reports, TaskReport
from homeport.status import TaskStatus
from homeport.story import StoryLine


def a_report(task_id: str, seqs: list[int], *, text: str = "x") -> TaskReport:
    story = tuple(
        (seq, StoryLine(at=float(number), event="e", message=text, actor="agent")) for number, seq in enumerate(seqs)
    )
    return TaskReport(
        task_id=TaskId(task_id), seq=max(seqs, default=0) + 1, status=TaskStatus.STOPPED, story=story, stopped_at=9.0
    )


def decoded(frames: list[bytes]) -> list[Reports]:
    messages = [msgspec.json.decode(frame, type=AgentMessage) for frame in frames]
    reports = [message for message in messages if isinstance(message, Reports)]
    assert len(reports) == len(messages)
    return reports


def test_reports_are_batched_up_to_a_frame() -> None:
    told = [a_report(f"t{number}", [1], text="y" * 1000) for number in range(1000)]
    frames = list(encode_reports(told))
    assert max(len(frame) for frame in frames) < FRAME_BYTES + 100
    assert len(frames) == 1 + sum(len(msgspec.json.encode(report)) for report in told) // FRAME_BYTES
    assert [report for reports in decoded(frames) for report in reports.tasks] == told
    assert list(encode_reports([])) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=4 * STORY_LINES))
def test_a_long_story_is_told_in_parts(steps: list[int]) -> None:
    report = a_report("t1", sorted(steps))
    parts = list(split_story(report))
    assert [line for part in parts for line in part.story] == list(report.story)
    seqs = [part.seq for part in parts]
    assert seqs == sorted(set(seqs))
    assert parts[-1].seq == report.seq
    for part, following in itertools.pairwise(parts):
        assert all(seq <= part.seq for seq, _ in part.story)
        assert all(seq > part.seq for seq, _ in following.story)
    assert {part.stopped_at for part in parts} == {9.0}


def test_parts_of_one_story_travel_in_frames_of_their_own() -> None:
    report = a_report("t1", list(range(3 * STORY_LINES)))
    frames = decoded(list(encode_reports([report, a_report("t2", [1])])))
    assert [len({part.task_id for part in frame.tasks}) for frame in frames] == [len(frame.tasks) for frame in frames]
    assert len(frames) == 3


def test_a_story_too_large_for_any_frame_loses_its_beginning() -> None:
    report = a_report("t1", [5] * 50, text="x" * 50_000)
    (frame,) = encode_reports([report])
    assert len(frame) < 1024 * 1024
    ((sent,),) = (reports.tasks for reports in decoded([frame]))
    assert 0 < len(sent.story) < 50
    assert sent.story[-1] == report.story[-1]
    assert replace(sent, story=()) == replace(report, story=())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3 * CHUNK_CHARACTERS), max_size=6), st.booleans())
def test_log_chunks_are_cut(lengths: list[int], end: bool) -> None:
    lines = tuple((float(number), "stdout", "z" * length) for number, length in enumerate(lengths))
    parts = list(split_chunk(LogChunk(request_id="r", lines=lines, end=end, error="e" if end else "")))
    assert [part.end for part in parts] == [False] * (len(parts) - 1) + [end]
    assert parts[-1].error == ("e" if end else "")
    joined: dict[float, str] = {}
    for part in parts:
        assert sum(len(text) for _, _, text in part.lines) <= CHUNK_CHARACTERS
        for at, _, text in part.lines:
            joined[at] = joined.get(at, "") + text
    assert joined == {at: text for at, _, text in lines}
