"""The plan of a chaos run: drawn from its seed, whole, and carried out in its time."""

from collections import Counter
from dataclasses import asdict
from random import Random

import pytest

from tests.chaos.impair import CLEAN, Impairment, arrivals
from tests.chaos.plan import CONTROL_PLANE, Fault, Kind, Part, draw

HOSTS = ["host-1", "host-2", "host-3"]


def _long() -> tuple[Fault, ...]:
    return draw(5, minutes=60, hosts=HOSTS)


def test_a_seed_is_a_plan() -> None:
    assert draw(1, minutes=20, hosts=HOSTS) == draw(1, minutes=20, hosts=HOSTS)
    assert draw(1, minutes=20, hosts=HOSTS) != draw(2, minutes=20, hosts=HOSTS)


def test_less_calm_means_more_faults() -> None:
    assert len(draw(1, minutes=20, hosts=HOSTS, calm=0.1)) > 1.5 * len(draw(1, minutes=20, hosts=HOSTS))


def test_a_longer_run_begins_as_the_shorter_one_does() -> None:
    short = draw(1, minutes=5, hosts=HOSTS)
    assert draw(1, minutes=20, hosts=HOSTS)[: len(short)] == short


def test_every_kind_of_fault_has_its_turn_as_often_as_another() -> None:
    counts = Counter(fault.name for fault in _long())
    assert len(counts) == 20
    assert max(counts.values()) - min(counts.values()) <= 1


def test_every_fault_ends_before_the_run_does() -> None:
    for minutes in (1, 5, 20):
        assert all(fault.end_s <= minutes * 60 for fault in draw(3, minutes=minutes, hosts=HOSTS))


def test_some_faults_overlap_but_nothing_suffers_two_at_a_time() -> None:
    plan = _long()
    overlapping = [(a, b) for a in plan for b in plan if a.at_s < b.at_s < a.end_s]
    assert overlapping
    assert all((a.part, a.node) != (b.part, b.node) for a, b in overlapping)


def test_each_part_is_broken_where_it_is() -> None:
    for fault in _long():
        assert (fault.node == CONTROL_PLANE) is (fault.part is Part.CONTROL_PLANE) or fault.part is Part.CABLE
    assert {fault.node for fault in _long() if fault.part is Part.CABLE} == {CONTROL_PLANE, *HOSTS}
    assert {fault.node for fault in _long() if fault.kind is Kind.KILL} == {CONTROL_PLANE, *HOSTS}


def test_a_plan_can_be_printed() -> None:
    assert asdict(_long()[0]).keys() == {"at_s", "lasts_s", "kind", "part", "node", "amount"}


@pytest.mark.parametrize(
    ("impairment", "copies"),
    [(CLEAN, {1}), (Impairment(loss=1.0), {0}), (Impairment(duplicate=1.0), {2}), (Impairment(loss=0.5), {0, 1})],
)
def test_a_cable_loses_and_doubles_as_it_is_told(impairment: Impairment, copies: set[int]) -> None:
    random = Random(1)
    assert {len(arrivals(impairment, random)) for _ in range(200)} == copies


def test_jitter_lets_frames_overtake_one_another() -> None:
    random = Random(1)
    delays = [delay for _ in range(200) for delay in arrivals(Impairment(delay_s=0.1, jitter_s=0.1), random)]
    assert 0 <= min(delays) < 0.02
    assert 0.18 < max(delays) <= 0.2


def test_a_clean_cable_holds_nothing_up() -> None:
    assert arrivals(CLEAN, Random(1)) == [0.0]
