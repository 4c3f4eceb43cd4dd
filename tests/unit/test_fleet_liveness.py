"""The decisions about who is alive, and how often a host must say so."""

import random

import pytest

from controlplane.fleet.liveness import Heard, HostVerdict, heartbeat_period, jittered, judge, silent
from controlplane.state.presence import Presence
from homeport.ids import InstanceId


def heard(name: str, at: float, period_s: float = 5.0) -> Heard:
    return Heard(InstanceId(name), at, period_s)


def test_a_host_is_silent_once_three_of_its_own_periods_have_passed() -> None:
    hosts = [heard("a", 100.0), heard("b", 100.0, 5.5), heard("c", 108.0)]
    assert silent(hosts, 114.9, 5.0) == []
    assert [host.instance_id for host in silent(hosts, 115.0, 5.0)] == ["a"]
    assert [host.instance_id for host in silent(hosts, 116.5, 5.0)] == ["a", "b"]


def test_the_search_ends_at_the_first_host_that_cannot_be_silent() -> None:
    def endless() -> "list[Heard]":
        return [heard("old", 0.0), heard("new", 99.0), heard("beyond", -1000.0)]

    assert [host.instance_id for host in silent(endless(), 100.0, 5.0)] == ["old"]


@pytest.mark.parametrize(("hosts", "period_s"), [(0, 5.0), (1, 5.0), (2500, 5.0), (5000, 10.0), (50_000, 100.0)])
def test_the_period_grows_with_the_fleet_so_that_the_total_stays_bounded(hosts: int, period_s: float) -> None:
    assert heartbeat_period(5.0, hosts, 500.0) == period_s


def test_periods_are_spread_by_a_tenth() -> None:
    source = random.Random(1)
    periods = [jittered(10.0, source) for _ in range(1000)]
    assert 9.0 <= min(periods) < 9.1
    assert 10.9 < max(periods) <= 11.0


def test_a_host_is_unknown_before_it_is_lost() -> None:
    away = Presence(connected=False, since=100.0, last_seen_at=100.0, heard_at=100.0)
    assert judge(away, now=150.0, started_at=0.0, lost_after_s=60.0) is HostVerdict.UNKNOWN
    assert judge(away, now=160.0, started_at=0.0, lost_after_s=60.0) is HostVerdict.LOST
    there = Presence(connected=True, since=0.0, last_seen_at=0.0, heard_at=0.0)
    assert judge(there, now=1e9, started_at=0.0, lost_after_s=60.0) is HostVerdict.CONNECTED


def test_a_control_plane_that_was_away_gives_every_host_the_full_grace() -> None:
    assert judge(None, now=1030.0, started_at=1000.0, lost_after_s=60.0) is HostVerdict.UNKNOWN
    assert judge(None, now=1060.0, started_at=1000.0, lost_after_s=60.0) is HostVerdict.LOST
    before = Presence(connected=False, since=1.0, last_seen_at=1.0, heard_at=1.0)
    assert judge(before, now=1030.0, started_at=1000.0, lost_after_s=60.0) is HostVerdict.UNKNOWN
