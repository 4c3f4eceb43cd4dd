"""The check of hot paths: what it counts, what it compares, and what it keeps."""

import shutil
from pathlib import Path

import msgspec
import pytest

from bench.hotpaths.check import Finding, Verdict, compare
from bench.hotpaths.measure import measure, parse
from bench.hotpaths.paths import PATHS
from bench.hotpaths.record import KEPT, RECORDS, Record, add, interpreter, read, write
from tests.fakes import hotpaths

ACCEPTED = {"reference": 1000, "place": 200, "report": 4000}


def a_record(instructions: dict[str, int] = ACCEPTED, *, reason: str = "the first") -> Record:
    return Record(
        commit="abcdef1", date="2026-11-22", reason=reason, interpreter=interpreter(), instructions=instructions
    )


def verdicts(**measured: int) -> dict[str, Verdict]:
    return {finding.path: finding.verdict for finding in compare(a_record(), {**ACCEPTED, **measured})}


def test_a_step_of_more_than_the_limit_fails_and_names_path_and_size() -> None:
    findings = compare(a_record(), {**ACCEPTED, "place": 260})
    (failing,) = (finding for finding in findings if finding.verdict.fails)
    assert (failing.path, failing.verdict) == ("place", Verdict.DEARER)
    assert failing.step == pytest.approx(0.3)


@pytest.mark.parametrize("place", [198, 200, 202, 239, 161])
def test_noise_passes(place: int) -> None:
    assert verdicts(place=place)["place"] is Verdict.AS_BEFORE


def test_what_becomes_cheaper_is_told_and_passes() -> None:
    assert verdicts(place=100)["place"] is Verdict.CHEAPER
    assert not Verdict.CHEAPER.fails


def test_another_interpreter_that_makes_everything_dearer_changes_nothing() -> None:
    findings = compare(a_record(), {path: 2 * count for path, count in ACCEPTED.items()})
    assert {finding.verdict for finding in findings} == {Verdict.AS_BEFORE}


def test_a_path_without_a_record_and_a_record_without_a_path_fail() -> None:
    findings = compare(a_record(), {"reference": 1000, "place": 200, "decode": 10})
    assert Finding("decode", Verdict.NEW) in findings
    assert Finding("report", Verdict.GONE) in findings
    assert Verdict.NEW.fails
    assert Verdict.GONE.fails
    assert {finding.verdict for finding in compare(None, ACCEPTED)} == {Verdict.NEW}


def test_the_records_in_the_tree_are_of_the_paths_there_are() -> None:
    last = read(RECORDS)[-1]
    assert list(last.instructions) == [path.name for path in PATHS]


def test_records_are_read_back_and_the_oldest_go(tmp_path: Path) -> None:
    records: list[Record] = []
    for number in range(KEPT + 2):
        records = add(records, a_record(reason=f"number {number}"))
    write(records, tmp_path / "records.json")
    found = read(tmp_path / "records.json")
    assert found == records
    assert [found[0].reason, found[-1].reason, len(found)] == ["number 2", f"number {KEPT + 1}", KEPT]
    assert read(tmp_path / "none.json") == []


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("commit", "yesterday's"),
        ("date", "22.11.2026"),
        ("reason", ""),
        ("instructions", {"place": 200}),
        ("instructions", {"reference": 1000, "place": 0}),
        ("instructions", {"reference": 1000, "place": 1.5}),
        ("seconds", 1),
    ],
)
def test_a_record_that_is_none_is_refused(tmp_path: Path, member: str, value: object) -> None:
    document = {**msgspec.to_builtins(a_record()), member: value}
    (tmp_path / "records.json").write_bytes(msgspec.json.encode([document]))
    with pytest.raises(msgspec.ValidationError):
        read(tmp_path / "records.json")


def test_totals_are_found_by_the_name_they_were_asked_for_under() -> None:
    dump = "version: 1\ndesc: Trigger: Client Request: place\nevents: Ir\n\nfn=(1)\n5 17\n\ntotals: 1234\n"
    at_the_end = "desc: Trigger: Program termination\ntotals: 99\n"
    assert parse([at_the_end, dump]) == {"place": 1234}


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="Valgrind is not installed")
def test_a_count_is_the_same_twice_and_a_planted_slowdown_is_found() -> None:
    counts = measure(hotpaths.PATHS, "tests.fakes.hotpaths")
    assert counts["the same work"] == pytest.approx(counts["work"], rel=0.02)
    assert counts["half as much again"] == pytest.approx(1.5 * counts["work"], rel=0.02)
    names = ("work", "half as much again")
    before, after = ({"reference": counts["reference"], "work": counts[name]} for name in names)
    (finding,) = compare(a_record(before), after)
    assert finding.verdict is Verdict.DEARER
