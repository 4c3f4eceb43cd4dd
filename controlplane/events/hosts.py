"""What is told of hosts though no record of theirs changes by itself: sessions, and what is left for new tasks.

Neither is journaled where it is kept. So the record remembers what was told last (`InstanceRecord.told`), and telling
is a transaction that brings it up to date, and its version with it, as ECS counts. What a control plane that was
killed had not told yet is told by the next one, and nothing is told twice.

 - A session that begins or ends is told at once, each of them.
 - What is left on a host changes with each task. It is told as it is by then, at most once in a period; if many hosts
   change at once, they take turns.
 - After a start hosts get some time to return. For those that do nothing is told: they were never missed.
"""

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Final

from msgspec.structs import replace

from controlplane.context import Context
from controlplane.state.records import InstanceRecord, ToldHost
from controlplane.state.remaining import remaining
from homeport.ids import InstanceId

__all__ = ["GRACE_S", "HostTeller", "tell_connection"]

#: What is left on hosts is told so often,
PERIOD_S: Final = 1.0
#: and of so many at once: about a millisecond's work, whatever the fleet.
_HOSTS_PER_PERIOD: Final = 100
#: How long after a start hosts that were connected before may take to return.
GRACE_S: Final = 60.0


def tell_connection(context: Context, instance_id: InstanceId) -> None:
    """Tell that a host's session has begun or ended, if that isn't what was told last."""
    instance = context.state.instances.get(instance_id)
    if instance is None or instance.status == "INACTIVE":
        return
    connected = context.state.presence.connected(instance_id)
    if instance.told.connected is not connected:
        _tell(context, instance, replace(instance.told, connected=connected))


class HostTeller:
    """Tells what is left on hosts. `period_s`: how often at most; `grace_s`: see GRACE_S."""

    def __init__(self, context: Context, *, period_s: float = PERIOD_S, grace_s: float = GRACE_S) -> None:
        self._context = context
        self._period_s = period_s
        self._grace_s = grace_s
        self._wake = asyncio.Event()
        self._seen = 0
        #: Hosts that have changed and wait for their turn, in the order in which they began to.
        self._due: dict[InstanceId, None] = {}

    async def run(self) -> None:
        """Tell until cancelled."""
        log = self._context.state.host_log
        self._mark(instance.id for instance in self._context.state.instances)
        self._seen = log.last
        log.followers.append(self._wake.set)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow())
                group.create_task(self._miss())
        finally:
            log.followers.remove(self._wake.set)

    async def _follow(self) -> None:
        while True:
            self.tell_due()
            if not self._due:
                await self._wake.wait()
            # What follows in this time is told with it.
            await asyncio.sleep(self._period_s)

    async def _miss(self) -> None:
        """Tell of the hosts that have not returned."""
        await asyncio.sleep(self._grace_s)
        state = self._context.state
        for instance_id in [instance.id for instance in state.instances if instance.told.connected]:
            if state.presence.of(instance_id) is None:
                tell_connection(self._context, instance_id)

    def tell_due(self) -> None:
        """Tell of those whose turn it is what they have left, if that isn't what was told last."""
        state = self._context.state
        self._wake.clear()
        changed = state.host_log.since(self._seen)
        self._seen = state.host_log.last
        self._mark(reversed(changed) if changed is not None else (instance.id for instance in state.instances))
        with state.transaction():
            for instance_id in list(islice(self._due, _HOSTS_PER_PERIOD)):
                del self._due[instance_id]
                instance = state.instances.get(instance_id)
                if instance is not None and instance.status != "INACTIVE":
                    left = remaining(state, instance)
                    # At first all is left, as its registration has told.
                    if left != (instance.told.remaining or instance.facts.resources):
                        _tell(self._context, instance, replace(instance.told, remaining=left))

    def _mark(self, instance_ids: Iterable[InstanceId]) -> None:
        self._due.update(dict.fromkeys(instance_ids))


def _tell(context: Context, instance: InstanceRecord, told: ToldHost) -> None:
    with context.state.transaction() as transaction:
        transaction.put(replace(instance, told=told, version=instance.version + 1))
