"""The words of the standalone reconciler: what it sees (`Snapshot`) and what it may want done (`Action`)."""

from collections.abc import Mapping

import msgspec

from controlplane.fleet.liveness import HostVerdict
from controlplane.state.records import TaskRecord
from homeport.ids import TaskId
from homeport.status import StopCode

__all__ = ["Action", "Decision", "GiveUp", "HostView", "Place", "Retry", "Settle", "Snapshot", "Stop", "Wait"]


class _Value(msgspec.Struct, frozen=True):
    """Base of what is seen and wanted."""


class HostView(_Value, frozen=True):
    """What one task may think of its host."""

    #: By the task's own lost-after.
    verdict: HostVerdict
    #: When the verdict becomes LOST if nothing is heard (epoch seconds); None unless it is UNKNOWN.
    lost_at: float | None = None
    name: str = ""


class Snapshot(_Value, frozen=True):
    """What one decision may depend on: a task without a group, or all of a concurrency group.

    The latter are those of its tasks that aren't STOPPED, and those whose end has yet to be taken into account.
    """

    tasks: tuple[TaskRecord, ...]
    #: Of the tasks that have a host.
    hosts: Mapping[TaskId, HostView] = {}


class Stop(_Value, frozen=True):
    """Ask for a task to be stopped."""

    task_id: TaskId
    reason: str
    stop_code: StopCode


class Place(_Value, frozen=True):
    """Choose a host for a waiting task. If there is none, it waits on, and its story says why."""

    task_id: TaskId


class Wait(_Value, frozen=True):
    """Tell in a waiting task's story what it waits for, unless that was the last thing said."""

    task_id: TaskId
    reason: str


class Retry(_Value, frozen=True):
    """Make the next attempt of a task, which is not placed for `delay_s`; the task's end is taken into account.

    `avoid`: the failure may be its host's. `lost`: its host is silent, so it is asked to stop should it still run.
    """

    task_id: TaskId
    why: str
    delay_s: float
    avoid: bool = False
    lost: bool = False


class GiveUp(_Value, frozen=True):
    """A task's host is silent and has stopped it by itself (homeport:stop-when-isolated): its group is free."""

    task_id: TaskId
    why: str


class Settle(_Value, frozen=True):
    """A task's end is taken into account, without another attempt. `why`: for its story; "" says nothing."""

    task_id: TaskId
    why: str = ""


Action = Stop | Place | Wait | Retry | GiveUp | Settle


class Decision(_Value, frozen=True):
    """What to do now, in this order, and when to look again even if nothing changes (epoch seconds)."""

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
