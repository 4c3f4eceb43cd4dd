"""The loop over standalone tasks: looks at those that something has happened to, decides, acts. Nothing is polled.

A task, or a concurrency group, is looked at when one of its tasks or their hosts have changed, and at the moment that
its last decision named. One that found no host is tried again when hosts have changed, a few times a second at most.
Moments are kept in memory only: what they are made of is in the records, so a restart finds them again.
"""

import asyncio
from collections import defaultdict
from typing import Final

import structlog

from controlplane.agenda import Agenda
from controlplane.context import Context
from controlplane.standalone.act import act
from controlplane.standalone.decide import decide
from controlplane.standalone.look import Key, key_of, look_at
from controlplane.standalone.model import Snapshot
from controlplane.state.records import TaskRecord
from controlplane.state.watch import Watch, WatchOverflow
from homeport.ids import InstanceId

__all__ = ["StandaloneLoop", "run"]

_log: Final = structlog.get_logger(__name__)

#: The shortest time between two attempts to place a task that found no host.
PLACE_AGAIN_S: Final = 0.2
#: Looks in one event-loop turn; requests and reports have theirs in between.
_SLICE: Final = 20


class StandaloneLoop:
    """Reconciles all tasks that no service owns. `run` is its life."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._started_at = context.clock.monotonic()
        self._agenda: Agenda[Key] = Agenda(context.clock, "standalone task", refresh=self._take_hosts)
        #: When what found no host was last tried.
        self._blocked: dict[Key, float] = {}
        self._on_host: defaultdict[InstanceId, set[Key]] = defaultdict(set)
        self._hosts: dict[Key, frozenset[InstanceId]] = {}
        self._hosts_seen = context.state.host_log.last
        self._watch: Watch | None = None

    async def run(self) -> None:
        """Reconcile until cancelled; what is decided is carried out in the same turn, so nothing is left half-done."""
        followers = self._context.state.host_log.followers
        followers.append(self.wake)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow())
                group.create_task(self._agenda.run(self._look, at_once=_SLICE))
        finally:
            followers.remove(self.wake)

    def wake(self) -> None:
        """Look at hosts and moments again, e.g. since the clock was set."""
        self._agenda.wake()

    def look_at_all(self) -> None:
        """Look at every task there is to look at."""
        self._agenda.mark(key_of(task) for task in self._context.state.tasks.where("standalone", value=True))

    @property
    def busy(self) -> bool:
        """Whether there is something to look at now."""
        return self._agenda.busy or self._watch is None or self._watch.pending > 0

    # ------------------------------------------------------------ what has happened

    async def _follow(self) -> None:
        while True:
            with self._context.state.snapshot_and_watch() as self._watch:
                self.look_at_all()
                try:
                    await self._follow_commits(self._watch)
                except WatchOverflow:
                    _log.warning("the standalone reconciler fell behind the state; it looks at every task")

    async def _follow_commits(self, watch: Watch) -> None:
        while True:
            for commit in await watch.next_batch():
                self._agenda.mark(
                    key_of(task)
                    for change in commit.changes
                    for task in (change.old, change.new)
                    if isinstance(task, TaskRecord) and task.order is not None
                )

    def _take_hosts(self) -> None:
        """Mark what is on hosts that have changed; let what found no host try again."""
        log = self._context.state.host_log
        if log.last == self._hosts_seen:
            return
        changed = log.since(self._hosts_seen)
        self._hosts_seen = log.last
        for instance_id in self._on_host if changed is None else changed:
            self._agenda.mark(self._on_host.get(instance_id, ()))
        for key, tried_at in self._blocked.items():
            self._agenda.hasten(key, tried_at + PLACE_AGAIN_S)

    # ------------------------------------------------------------ looking and acting

    def _look(self, key: Key) -> None:
        self._agenda.schedule(key, None)
        self._blocked.pop(key, None)
        snapshot = look_at(self._context, key, started_at=self._started_at)
        self._note_hosts(key, snapshot)
        if snapshot is None:
            return
        now = self._context.clock.now()
        decision = decide(snapshot, now)
        if act(self._context, decision):
            self._blocked[key] = now
        self._agenda.schedule(key, decision.wake_at)

    def _note_hosts(self, key: Key, snapshot: Snapshot | None) -> None:
        found: frozenset[InstanceId] = frozenset()
        if snapshot is not None:
            hosts = (task.instance_id for task in snapshot.tasks if task.id in snapshot.hosts)
            found = frozenset(host for host in hosts if host is not None)
        known = self._hosts.pop(key, frozenset())
        for gone in known - found:
            self._on_host[gone].discard(key)
            if not self._on_host[gone]:
                del self._on_host[gone]
        for new in found - known:
            self._on_host[new].add(key)
        if found:
            self._hosts[key] = found


async def run(context: Context) -> None:
    """Reconcile standalone tasks until cancelled (see StandaloneLoop.run)."""
    await StandaloneLoop(context).run()
