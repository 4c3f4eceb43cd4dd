"""What the control plane keeps of schedules: those of EventBridge Scheduler, their groups, EventBridge's rules, runs.

    ScheduleRecord       a schedule of EventBridge Scheduler: a timetable and one target
    ScheduleGroupRecord  a named group of them, with tags; `default` is there without a record
    RuleRecord           a rule of EventBridge: a timetable or a pattern of events, and up to five targets
    ScheduleRunRecord    one occurrence (a due time or an event) at one target: what became of it, and its tasks

A run is put in the transaction that starts its tasks and moves the trigger's `next_at` on: so that an occurrence is
handled once, whenever the process dies.
"""

from enum import StrEnum
from typing import Any, ClassVar, Final

import msgspec

from controlplane.state.records import Record, Tags

__all__ = [
    "DEFAULT_GROUP",
    "RuleRecord",
    "RunOutcome",
    "ScheduleGroupRecord",
    "ScheduleRecord",
    "ScheduleRunRecord",
    "Timetable",
    "TriggerRecord",
]

DEFAULT_GROUP: Final = "default"


class Timetable(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When something is due. Times are epoch seconds."""

    #: cron(...), rate(...) or at(...).
    expression: str
    #: IANA name.
    timezone: str = "UTC"
    start_at: float | None = None
    end_at: float | None = None
    #: Length of the flexible time window; 0: off.
    window_s: float = 0.0
    #: The first time of a rate.
    anchor_at: float = 0.0


class TriggerRecord(Record, frozen=True):
    """What schedules and rules have in common."""

    name: str
    created_at: float
    timetable: Timetable
    modified_at: float = 0.0
    #: ENABLED or DISABLED.
    state: str = "ENABLED"
    description: str = ""
    #: Target documents as given, with defaults filled in; each with an `Id` if it is a rule's.
    targets: tuple[dict[str, Any], ...] = ()
    #: The first due time that isn't handled; None: there is none any more.
    next_at: float | None = None
    #: Target id -> ids of its tasks that weren't STOPPED when last looked at.
    running: dict[str, tuple[str, ...]] = {}
    #: Number of the last run.
    last_run: int = 0

    @property
    def trigger(self) -> str:
        """`schedule/GROUP/NAME` or `rule/NAME`: unique among schedules and rules."""
        raise NotImplementedError


class ScheduleRecord(TriggerRecord, frozen=True):
    """A schedule. `targets` has its one target."""

    kind: ClassVar[str] = "schedule"

    group: str = DEFAULT_GROUP
    #: NONE or DELETE.
    action_after_completion: str = "NONE"

    @property
    def key(self) -> str:
        """See Record."""
        return f"{self.group}/{self.name}"

    @property
    def trigger(self) -> str:
        """See TriggerRecord."""
        return f"schedule/{self.key}"


class ScheduleGroupRecord(Record, frozen=True):
    """A schedule group."""

    kind: ClassVar[str] = "schedule-group"

    name: str
    created_at: float
    modified_at: float = 0.0
    tags: Tags = {}

    @property
    def key(self) -> str:
        """See Record."""
        return self.name


class RuleRecord(TriggerRecord, frozen=True):
    """A rule of the default event bus: it has an event pattern, a timetable (else its expression is ""), or both."""

    kind: ClassVar[str] = "rule"

    #: JSON, as given.
    pattern: str = ""

    role_arn: str = ""
    tags: Tags = {}

    @property
    def key(self) -> str:
        """See Record."""
        return self.name

    @property
    def trigger(self) -> str:
        """See TriggerRecord."""
        return f"rule/{self.name}"


class RunOutcome(StrEnum):
    """What became of an occurrence."""

    PENDING = "PENDING"  #: not all its tasks are started yet: it is tried again, or waits for earlier tasks to stop
    STARTED = "STARTED"
    FAILED = "FAILED"  #: given up; with a dead-letter queue this is what would have been sent there
    SKIPPED = "SKIPPED"  #: by the overlap policy
    MISSED = "MISSED"  #: its time passed while the control plane wasn't running


class ScheduleRunRecord(Record, frozen=True):
    """One occurrence of a trigger at one of its targets; kept as history. Times are epoch seconds."""

    kind: ClassVar[str] = "schedule-run"

    #: Of the TriggerRecord.
    trigger: str
    #: Counts up within the trigger.
    number: int
    due_at: float
    outcome: RunOutcome
    #: UUID that Input's `<aws.scheduler.execution-id>` stands for; or the id of the event that it is for.
    id: str = ""
    #: Of a rule's target; "" of a schedule.
    target_id: str = ""
    #: What the target is given in place of its own Input: made of the event that the run is for.
    input: str = ""
    #: When it was first tried.
    begun_at: float | None = None
    attempts: int = 0
    #: PENDING: when it is tried again; None while it waits for earlier tasks to stop.
    retry_at: float | None = None
    #: Ids of the tasks it started, and the cluster they are in.
    tasks: tuple[str, ...] = ()
    cluster: str = ""
    reason: str = ""
    #: ARN of the dead-letter queue that a FAILED run would have gone to.
    dead_letter: str = ""
    #: When its outcome was settled.
    finished_at: float | None = None
    #: MISSED: how many occurrences this record stands for, and when the last of them was due.
    count: int = 1
    last_due_at: float | None = None
    #: When it is forgotten, once its trigger is gone.
    expires_at: float | None = None

    @property
    def key(self) -> str:
        """See Record."""
        return f"{self.trigger}/{self.number:012d}"
