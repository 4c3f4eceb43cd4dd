"""Which hosts are alive: pure decisions over when each was last heard. `hub` asks them and acts.

A host is silent once it has missed MISSED_PERIODS of the periods dictated to it. Its tasks are then *unknown*: shown
with `agentConnected` false and otherwise left as they are, since the host may well run them (invariant 7).
"""

import random
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

from controlplane.state.presence import Presence
from homeport.ids import InstanceId

__all__ = ["JITTER", "MISSED_PERIODS", "Heard", "HostVerdict", "heartbeat_period", "jittered", "judge", "silent"]

#: Heartbeats that may be missing before a host counts as silent. Three, so that one lost connection is no news.
MISSED_PERIODS: Final = 3
#: Each period is dictated with this relative spread, so that hosts that joined together drift apart.
JITTER: Final = 0.1


class HostVerdict(StrEnum):
    """What the control plane makes of a host."""

    CONNECTED = "connected"
    UNKNOWN = "unknown"  #: no session; its tasks may well be running
    LOST = "lost"  #: no session for so long that its tasks are to be replaced


class Heard(NamedTuple):
    """When a host was last heard (monotonic seconds), and the period dictated to it then."""

    instance_id: InstanceId
    at: float
    period_s: float


def heartbeat_period(base_s: float, hosts: int, heartbeats_per_s: float) -> float:
    """Return the period for a fleet of this size: `base_s`, or longer so that the total stays bounded."""
    return max(base_s, hosts / heartbeats_per_s)


def jittered(period_s: float, source: random.Random) -> float:
    """Spread a period by ±10 %."""
    return period_s * source.uniform(1 - JITTER, 1 + JITTER)


def silent(heard: Iterable[Heard], now: float, shortest_period_s: float) -> list[Heard]:
    """Return the hosts that have missed MISSED_PERIODS.

    `heard` comes longest silent first, and no period is below `shortest_period_s` less the jitter: so the search ends
    at the first host that can't be silent yet, and costs nothing while all are well.
    """
    found = []
    for host in heard:
        silence = now - host.at
        if silence < MISSED_PERIODS * shortest_period_s * (1 - JITTER):
            break
        if silence >= MISSED_PERIODS * host.period_s:
            found.append(host)
    return found


def judge(presence: Presence | None, *, now: float, started_at: float, lost_after_s: float) -> HostVerdict:
    """Return what to make of a host by its presence. All times are of the monotonic clock, in seconds.

    A host that has not been heard of since this process started is given `lost_after_s` from that start: a control
    plane that comes back must not take its own absence for theirs.
    """
    if presence is not None and presence.connected:
        return HostVerdict.CONNECTED
    last_seen = started_at if presence is None else max(presence.heard_at, started_at)
    return HostVerdict.LOST if now - last_seen >= lost_after_s else HostVerdict.UNKNOWN
