"""A courier brings the events that a rule matches to one target: in order, each at least once.

Its place in the stream is in the target's DeliveryRecord. That is written every few deliveries, and when there is
nothing more to bring; so a crash repeats a few at most (receivers tell them by the event's id) and loses none. Tasks
are started in the transaction that moves the place on: exactly once.
"""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import structlog
from msgspec.structs import replace

from controlplane.context import Context
from controlplane.events.api import EventFeed, NumberedEvent
from controlplane.events.dispatch import Post, deliver, start_tasks
from controlplane.events.retrying import Backoff, Outcome, Verdict, retry_policy
from controlplane.events.targets import (
    TargetKind,
    delivery_of,
    destination_of,
    is_followed,
    is_wanted,
    kind_of,
    target_of,
)
from controlplane.events.transform import input_of
from controlplane.state.delivery_records import DeliveryRecord
from controlplane.state.schedule_records import RuleRecord
from homeport.clock import iso_time

__all__ = ["Courier"]

#: Events that are read at once.
_CHUNK: Final = 100
#: Deliveries that a crash may repeat.
_MOST_REPEATED: Final = 10
#: Events that are passed over before the place among them is written down.
_MOST_REREAD: Final = 1000
#: The longest wait before the clock is asked again.
_MAX_WAIT_S: Final = 60.0

_log: Final = structlog.get_logger(__name__)


class _Parcel(NamedTuple):
    """What is to be brought, and what by."""

    rule: RuleRecord
    target: Mapping[str, Any]
    event: NumberedEvent


class _Over(Exception):
    """The rule or target is gone or disabled: there is nothing left to do."""


class Courier:
    """See the module. `run` is its life; nothing else may write its target's place meanwhile, but to begin it anew."""

    def __init__(
        self,
        context: Context,
        feed: EventFeed,
        post: Post,
        record: DeliveryRecord,
        *,
        backoff: Backoff,
        source: random.Random,
    ) -> None:
        self._context = context
        self._feed = feed
        self._post = post
        self._rule, self._target_id = record.rule, record.target_id
        self.generation = record.generation
        self._cursor = record.cursor
        self._saved = record.cursor
        self._delivered = 0
        self._backoff = backoff
        self._source = source
        self._changed = asyncio.Event()
        self._next_send = 0.0

    @property
    def name(self) -> str:
        """RULE/TARGET, for the log."""
        return f"{self._rule}/{self._target_id}"

    def wake(self) -> None:
        """Try again at once: something about the target has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Bring events until cancelled, or until there is nothing to bring them to. The place is kept either way."""
        try:
            while True:
                last = self._feed.last
                events = await self._feed.read(self._cursor, limit=_CHUNK)
                if events:
                    self._note_gap(events[0].number - 1)
                    for event in events:
                        await self._handle(event)
                elif last > self._cursor:
                    self._note_gap(last)
                else:
                    self._save()
                    await self._feed.wait(self._cursor)
        except _Over:
            return
        finally:
            self._save(whatever=True)

    # ------------------------------------------------------------ one event

    async def _handle(self, event: NumberedEvent) -> None:
        rule, target = self._look()
        if is_wanted(rule, target, event.document, self._context.arns.rule(self._rule)):
            if kind_of(target["Arn"]) is TargetKind.ECS:
                self._start_tasks(_Parcel(rule, target, event))
                await asyncio.sleep(0)  # requests and reports have their turns between starts
                return
            await self._bring(event)
        self._cursor = event.number
        if self._delivered >= _MOST_REPEATED or self._cursor - self._saved >= _MOST_REREAD:
            self._save()

    def _look(self) -> tuple[RuleRecord, Mapping[str, Any]]:
        """Return the rule and the target as they are now. Raises _Over if they are no more."""
        rule = self._context.state.rules.get(self._rule)
        target = None if rule is None else target_of(rule, self._target_id)
        if rule is None or target is None or rule.state != "ENABLED" or not self._is_mine():
            raise _Over
        if not is_followed(rule, target):
            raise _Over
        return rule, target

    def _is_mine(self) -> bool:
        record = self._record()
        return record is not None and record.generation == self.generation and not record.disabled

    def _start_tasks(self, parcel: _Parcel) -> None:
        """Start an ECS target's tasks and move on, in one transaction."""
        with self._context.state.transaction():
            start_tasks(self._context, parcel.rule, parcel.target, parcel.event, self._input(parcel))
            self._cursor = parcel.event.number
            self._delivered += 1
            self._save(last_delivered_at=self._context.clock.now())

    async def _bring(self, event: NumberedEvent) -> None:
        """Deliver an event, however often it takes, or give it up as the target's policy says."""
        while True:
            rule, target = self._look()
            record = self._record()
            assert record is not None
            now = self._context.clock.now()
            age = now - event.at
            policy = retry_policy(target)
            if age > policy.max_age_s:
                self._give_up(event, f"{record.problem or 'its turn did not come'}; given up after {age:.0f} seconds")
                return
            if (wait_s := _left_to_wait(record, now)) > 0.0:
                await self._pause(wait_s)
                continue
            outcome = await self._attempt(_Parcel(rule, target, event))
            if outcome.verdict is Verdict.DELIVERED:
                self._delivered += 1
                self._after_success()
                return
            attempts = record.attempts + 1
            spent = attempts > policy.max_retries and outcome.verdict is not Verdict.GONE
            if outcome.verdict is Verdict.REFUSED or spent:
                tries = "" if outcome.verdict is Verdict.REFUSED else f"; given up after {attempts} attempts"
                self._give_up(event, outcome.problem + tries)
                return
            self._note_failure(event, outcome, attempts)

    async def _attempt(self, parcel: _Parcel) -> Outcome:
        await self._keep_pace(parcel.target)
        self._changed.clear()
        text = self._input(parcel)
        outcome = await deliver(self._context, self._post, parcel.rule, parcel.target, parcel.event.document, text)
        if outcome.verdict is not Verdict.DELIVERED:
            _log.info("event delivery failed", rule=self._rule, target=self._target_id, problem=outcome.problem)
        return outcome

    def _input(self, parcel: _Parcel) -> str:
        arn = self._context.arns.rule(self._rule)
        return input_of(parcel.target, parcel.event.document, rule_arn=arn, ingested_at=iso_time(parcel.event.at))

    async def _keep_pace(self, target: Mapping[str, Any]) -> None:
        """Wait until the destination's rate allows the next request."""
        destination = destination_of(self._context.state, target["Arn"])
        if destination is None:
            return
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._next_send - loop.time()))
        self._next_send = loop.time() + 1.0 / destination.rate

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt, or until something has changed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, _MAX_WAIT_S)):
                await self._changed.wait()
        if self._changed.is_set():
            self._changed.clear()
            self._put(retry_at=None)

    # ------------------------------------------------------------ what is kept

    def _record(self) -> DeliveryRecord | None:
        return delivery_of(self._context.state, self._rule, self._target_id)

    def _after_success(self) -> None:
        record = self._record()
        if record is not None and record.attempts:
            self._put(event_at=None, attempts=0, tried_at=None, retry_at=None, problem="")
            _log.info("event delivery works again", rule=self._rule, target=self._target_id)

    def _note_failure(self, event: NumberedEvent, outcome: Outcome, attempts: int) -> None:
        """Keep what went wrong and when it is tried again; an endpoint that is gone gets nothing more."""
        now = self._context.clock.now()
        delay = max(self._backoff.delay(attempts, self._source), outcome.retry_after_s or 0.0)
        gone = outcome.problem if outcome.verdict is Verdict.GONE else ""
        self._put(
            event_at=event.at,
            attempts=attempts,
            tried_at=now,
            retry_at=now + delay,
            problem=outcome.problem,
            disabled=gone,
        )

    def _give_up(self, event: NumberedEvent, reason: str) -> None:
        record = self._record()
        assert record is not None
        self._cursor = event.number
        self._put(
            event_at=None,
            attempts=0,
            tried_at=None,
            retry_at=None,
            problem="",
            dropped=record.dropped + 1,
            last_dropped_at=self._context.clock.now(),
            drop_reason=reason,
        )
        _log.warning("event not delivered", rule=self._rule, target=self._target_id, number=event.number, reason=reason)

    def _note_gap(self, through: int) -> None:
        """Move on over events that have left the stream before their turn came."""
        missing = through - self._cursor
        if missing <= 0:
            return
        record = self._record()
        self._cursor = through
        if record is not None:
            reason = f"{missing} events had left the stream before their turn came: they are kept for a limited time"
            now = self._context.clock.now()
            self._put(dropped=record.dropped + missing, last_dropped_at=now, drop_reason=reason)

    def _save(self, *, whatever: bool = False, **members: Any) -> None:
        """Keep the place, if that is worth a write."""
        if self._delivered or self._cursor - self._saved >= (1 if whatever else _MOST_REREAD):
            if self._delivered:
                members.setdefault("last_delivered_at", self._context.clock.now())
            self._put(**members)

    def _put(self, **members: Any) -> None:
        """Write the record: the place in any case, `members` only while nobody has begun the target anew."""
        record = self._record()
        if record is None:
            return
        if record.generation != self.generation:
            members = {}
        with self._context.state.transaction() as transaction:
            cursor = max(record.cursor, self._cursor)
            transaction.put(replace(record, cursor=cursor, delivered=record.delivered + self._delivered, **members))
        self._saved, self._delivered = self._cursor, 0


def _left_to_wait(record: DeliveryRecord, now: float) -> float:
    """Return the seconds until the next attempt; none if the last one lies ahead, as the clock was set back since."""
    if record.retry_at is None or (record.tried_at is not None and now < record.tried_at):
        return 0.0
    return record.retry_at - now
