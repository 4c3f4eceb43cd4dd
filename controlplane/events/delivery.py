"""Has a courier for each target of each enabled rule that events are matched with, and no others.

Nothing is polled: commits tell what has changed. A target that is slow or dead costs one waiting courier; one that
fails, which is a bug, begins again after a while where it was. There are as many as targets, which AWS's quotas bound.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from controlplane.context import Context
from controlplane.events.api import EventFeed
from controlplane.events.courier import Courier
from controlplane.events.dispatch import Post
from controlplane.events.retrying import Backoff
from controlplane.events.sending import Sender
from controlplane.events.targets import delivery_of, is_followed
from controlplane.state.delivery_records import ApiDestinationRecord, ConnectionRecord, DeliveryRecord
from controlplane.state.schedule_records import RuleRecord
from controlplane.state.watch import WatchOverflow
from controlplane.store.api import Change

__all__ = ["Deliveries", "run"]

#: A courier that has failed begins again after this time.
_AFTER_FAILURE_S: Final = 30.0

_log: Final = structlog.get_logger(__name__)


class Deliveries:
    """Keeps the couriers. `run` is its life."""

    def __init__(self, context: Context, feed: EventFeed, post: Post, *, backoff: Backoff | None = None) -> None:
        self._context = context
        self._feed = feed
        self._post = post
        self._backoff = backoff or Backoff()
        #: Rule -> target -> its courier and the courier's life.
        self._couriers: dict[str, dict[str, tuple[Courier, asyncio.Task[None]]]] = {}

    async def run(self) -> None:
        """Run until cancelled; each courier then writes down how far it has got."""
        async with asyncio.TaskGroup() as group:
            while True:
                with self._context.state.snapshot_and_watch() as watch:
                    rules = self._context.state.rules
                    self._adjust(group, {*self._couriers, *(rule.name for rule in rules)})
                    try:
                        while True:
                            for commit in await watch.next_batch():
                                for change in commit.changes:
                                    self._take(group, change)
                    except WatchOverflow:
                        continue  # every rule is looked at

    def _take(self, group: asyncio.TaskGroup, change: Change) -> None:
        record = change.new or change.old
        if isinstance(record, RuleRecord):
            self._adjust(group, (record.name,))
        elif isinstance(record, DeliveryRecord):
            self._adjust(group, (record.rule,))
        elif isinstance(record, ApiDestinationRecord | ConnectionRecord):
            for couriers in self._couriers.values():
                for courier, _ in couriers.values():
                    courier.wake()

    def _adjust(self, group: asyncio.TaskGroup, rules: Iterable[str]) -> None:
        """Begin and end couriers of these rules as the state has it."""
        for rule in rules:
            wanted = self._wanted(rule)
            present = self._couriers.pop(rule, {})
            kept: dict[str, tuple[Courier, asyncio.Task[None]]] = {}
            for target_id, record in wanted.items():
                courier, life = present.pop(target_id, (None, None))
                if courier is None or life is None or courier.generation != record.generation:
                    if life is not None:
                        life.cancel()
                    courier = self._courier(record)
                    life = group.create_task(self._live(courier, life))
                kept[target_id] = courier, life
            for _, life in present.values():
                life.cancel()
            if kept:
                self._couriers[rule] = kept

    def _wanted(self, name: str) -> dict[str, DeliveryRecord]:
        rule = self._context.state.rules.get(name)
        if rule is None or rule.state != "ENABLED":
            return {}
        records = {
            target["Id"]: delivery_of(self._context.state, name, target["Id"])
            for target in rule.targets
            if is_followed(rule, target)
        }
        return {target_id: record for target_id, record in records.items() if record and not record.disabled}

    def _courier(self, record: DeliveryRecord) -> Courier:
        context = self._context
        return Courier(context, self._feed, self._post, record, backoff=self._backoff, source=context.random)

    async def _live(self, courier: Courier, before: asyncio.Task[None] | None) -> None:
        """Live a courier's life, once the one before it is over."""
        if before is not None:
            await asyncio.wait({before})
        while True:
            try:
                await courier.run()
            except Exception:  # noqa: BLE001 - whatever it is, it is logged, and other targets go on
                _log.exception("bringing events to a target failed", target=courier.name)
                await asyncio.sleep(_AFTER_FAILURE_S)
            else:
                return


async def run(context: Context, feed: EventFeed) -> None:
    """Bring events to targets until cancelled (see Deliveries.run)."""
    async with Sender(context.clock) as sender:
        await Deliveries(context, feed, sender).run()
