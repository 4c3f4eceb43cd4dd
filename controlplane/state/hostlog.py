"""Which hosts have changed since a given moment, so that whoever keeps something for each host can catch up cheaply."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from homeport.ids import InstanceId

__all__ = ["HostLog"]

#: Hosts remembered. Beyond, the log begins afresh, and so must whoever follows it: gone hosts don't pile up here.
_MAX_HOSTS: Final = 50_000


class HostLog:
    """The hosts in the order of their last change: of the record, of what tasks hold there, or of their presence.

    A change is numbered; `last` is the latest number. Changes that are undone are changes too.
    """

    def __init__(self) -> None:
        self.last = 0
        self._began = 0
        self._changes: OrderedDict[InstanceId, int] = OrderedDict()
        #: Called after each change: whoever follows hosts looks into the log then. Append, and remove when done.
        self.followers: list[Callable[[], None]] = []

    def note(self, instance_id: InstanceId) -> None:
        """Note that a host has changed just now. For the state's own books alone."""
        if len(self._changes) >= _MAX_HOSTS:
            self._changes.clear()
            self._began = self.last
        self.last += 1
        self._changes[instance_id] = self.last
        self._changes.move_to_end(instance_id)
        for follower in self.followers:
            follower()

    def since(self, number: int) -> list[InstanceId] | None:
        """Return the hosts that have changed after `number`; None if that is too long ago to be known."""
        if number < self._began:
            return None
        changed = []
        for instance_id in reversed(self._changes):
            if self._changes[instance_id] <= number:
                break
            changed.append(instance_id)
        return changed
