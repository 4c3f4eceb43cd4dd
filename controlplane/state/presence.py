"""Which hosts are heard of right now. Not journaled: after a restart every host is unknown until it speaks."""

import msgspec

from controlplane.state.hostlog import HostLog
from homeport.ids import InstanceId
from homeport.protocol import Condition

__all__ = ["Presence", "PresenceBook"]


class Presence(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a host is connected. Times are epoch seconds, for people, but for `heard_at`."""

    connected: bool
    since: float
    last_seen_at: float
    #: The same by the monotonic clock: how long a host is silent mustn't change when somebody sets the clock.
    heard_at: float = 0.0
    conditions: tuple[Condition, ...] = ()
    #: The IP address its last session came from; "" if unknown.
    address: str = ""
    #: Whether everything that has changed while it was away is known: only then are its tasks as they seem.
    heard_out: bool = False

    @property
    def impaired(self) -> tuple[Condition, ...]:
        """The conditions that are not well."""
        return tuple([condition for condition in self.conditions if not condition.ok])


class PresenceBook:
    """instance -> Presence. `fleet` alone writes.

    Hosts that come, have been heard out, go, or change their health are noted in `log`.
    """

    def __init__(self, log: HostLog) -> None:
        self._log = log
        self._presence: dict[InstanceId, Presence] = {}

    def of(self, instance_id: InstanceId) -> Presence | None:
        """Return a host's presence; None if it has not been heard of since this process started."""
        return self._presence.get(instance_id)

    def connected(self, instance_id: InstanceId) -> bool:
        """Tell whether the host has a session now."""
        presence = self._presence.get(instance_id)
        return presence is not None and presence.connected

    def connected_count(self) -> int:
        """Return the number of hosts with a session."""
        return sum(presence.connected for presence in self._presence.values())

    def put(self, instance_id: InstanceId, presence: Presence) -> None:
        """Note a host's presence."""
        before = self._presence.get(instance_id)
        self._presence[instance_id] = presence
        # A mere heartbeat is no news.
        if before is None or _news(before) != _news(presence):
            self._log.note(instance_id)

    def forget(self, instance_id: InstanceId) -> None:
        """Drop a host that is gone for good."""
        self._presence.pop(instance_id, None)
        self._log.note(instance_id)


def _news(presence: Presence) -> tuple[bool, bool, tuple[Condition, ...]]:
    return presence.connected, presence.heard_out, presence.conditions
