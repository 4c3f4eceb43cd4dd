"""What to do about tasks that no service owns: pure, a function of a snapshot and the time.

What always holds:
 - of a concurrency group at most one task has a host: the next is placed when the last one is STOPPED, be it that its
   host said so or that it was given up with its host, by force. A host's silence frees nothing, since the task may run
   on, unless the host is sure to have stopped it by then (homeport:stop-when-isolated);
 - those that wait take turns in the order of their arrival; an attempt that has to wait out its delay lets others by;
 - each failure leads to one new attempt, up to the number asked for; a stop on request, a time limit that was reached
   and an error that no other attempt can heal lead to none.
"""

from collections.abc import Iterator, Sequence, Set
from typing import Final

from controlplane.fleet.liveness import HostVerdict
from controlplane.standalone.failures import failure_of
from controlplane.standalone.model import Action, Decision, GiveUp, HostView, Place, Retry, Settle, Snapshot, Stop, Wait
from controlplane.state.records import TaskOrder, TaskRecord
from homeport.clock import is_ahead
from homeport.ids import TaskId
from homeport.reasons import START_TIMED_OUT, TIMED_OUT, WAIT_TIMED_OUT
from homeport.status import DesiredStatus, StopCode, TaskStatus

__all__ = ["FIRST_DELAY_S", "MAX_DELAY_S", "decide", "retry_delay_s", "taken"]

#: The delay before the second attempt; each further one is twice as long, up to MAX_DELAY_S.
FIRST_DELAY_S: Final = 1.0
MAX_DELAY_S: Final = 300.0

_UNSEEN: Final = HostView(HostVerdict.CONNECTED)


def retry_delay_s(attempt: int) -> float:
    """Return how long to wait after this attempt (counted from 1) has failed."""
    return min(FIRST_DELAY_S * 2.0 ** (attempt - 1), MAX_DELAY_S)


def decide(snapshot: Snapshot, now: float) -> Decision:
    """Return what to do now, and when to look again."""
    actions: list[Action] = []
    moments: list[float] = []
    for task in snapshot.tasks:
        host = snapshot.hosts.get(task.id, _UNSEEN)
        if host.lost_at is not None:
            moments.append(host.lost_at)
        if not task.settled:
            actions += _of_one(task, host, now)
            moments += _moments(task)
    stopped = {action.task_id for action in actions if isinstance(action, Stop)}
    actions += _next_in_turn(snapshot, stopped, now)
    return Decision(tuple(actions), min((moment for moment in moments if moment > now), default=None))


def _of_one(task: TaskRecord, host: HostView, now: float) -> Sequence[Action]:
    if task.status is TaskStatus.STOPPED:
        return [_after_the_end(task)]
    return _stop_in_time(task, now) or _replace_if_lost(task, host)


def _order(task: TaskRecord) -> TaskOrder:
    assert task.order is not None, "only tasks with an order are looked at"
    return task.order


# ---------------------------------------------------------------- time


def _limits(task: TaskRecord) -> Iterator[tuple[float, Stop]]:
    """Yield the times at which a task is stopped as things are."""
    order = _order(task)
    if task.desired is DesiredStatus.STOPPED:
        return
    if task.status is TaskStatus.PROVISIONING:
        if order.wait_timeout_s is not None:
            begin = task.created_at if order.not_before is None else order.not_before
            reason = WAIT_TIMED_OUT.format(limit_s=order.wait_timeout_s)
            yield begin + order.wait_timeout_s, Stop(task.id, reason, StopCode.USER_INITIATED)
    elif task.running_at is not None:
        if order.timeout_s is not None:
            reason = TIMED_OUT.format(limit_s=order.timeout_s)
            yield task.running_at + order.timeout_s, Stop(task.id, reason, StopCode.USER_INITIATED)
    elif order.start_timeout_s is not None and order.placed_at is not None:
        reason = START_TIMED_OUT.format(limit_s=order.start_timeout_s)
        yield order.placed_at + order.start_timeout_s, Stop(task.id, reason, StopCode.TASK_FAILED_TO_START)


def _stop_in_time(task: TaskRecord, now: float) -> Sequence[Action]:
    return [stop for at, stop in _limits(task) if at <= now][:1]


def _moments(task: TaskRecord) -> list[float]:
    """Return the times at which this task may call for something, should nothing else happen."""
    moments = [at for at, _ in _limits(task)]
    not_before = _order(task).not_before
    if task.status is TaskStatus.PROVISIONING and not_before is not None:
        moments.append(not_before)
    return moments


# ---------------------------------------------------------------- attempts


def _after_the_end(task: TaskRecord) -> Action:
    order = _order(task)
    failure = failure_of(task)
    if failure is None or not order.retries:
        return Settle(task.id)
    attempts = order.retries + 1
    if order.attempt >= attempts:
        return Settle(task.id, f"Attempt {order.attempt} of {attempts} failed ({failure.why}); there is no other")
    if failure.hopeless:
        why = f"Attempt {order.attempt} of {attempts} failed in a way that another one can't heal: {failure.why}"
        return Settle(task.id, why)
    return Retry(task.id, failure.why, retry_delay_s(order.attempt), avoid=failure.of_host)


def _replace_if_lost(task: TaskRecord, host: HostView) -> Sequence[Action]:
    """Make another attempt of a task whose host has been silent for too long. Without one left it is hoped for."""
    order = _order(task)
    if task.instance_id is None or host.verdict is not HostVerdict.LOST:
        return []
    why = f"its host {host.name} has not been heard of for {order.lost_after_s} s"
    ended_well = task.desired is DesiredStatus.STOPPED and (task.stop_code is None or failure_of(task) is None)
    if order.attempt <= order.retries and not ended_well:
        return [Retry(task.id, why, retry_delay_s(order.attempt), avoid=True, lost=True)]
    if order.exclusive and order.stop_when_isolated:
        return [GiveUp(task.id, why)]
    return []


def _is_delayed(order: TaskOrder, now: float) -> bool:
    """Whether an attempt isn't to be made yet."""
    return order.not_before is not None and is_ahead(order.not_before, now, longest_s=MAX_DELAY_S)


# ---------------------------------------------------------------- turns


def _next_in_turn(snapshot: Snapshot, stopped: Set[TaskId], now: float) -> Sequence[Action]:
    """Place the one that is next, or say what it waits for."""
    waiting = [
        task
        for task in snapshot.tasks
        if task.status is TaskStatus.PROVISIONING and task.id not in stopped and not _is_delayed(_order(task), now)
    ]
    if not waiting:
        return []
    head = min(waiting, key=lambda task: (_order(task).turn, task.id))
    holder = next((t for t in snapshot.tasks if t.instance_id and t.status is not TaskStatus.STOPPED), None)
    if holder is None:
        return [Place(head.id)]
    return [Wait(head.id, taken(_order(head).exclusive, holder, snapshot.hosts.get(holder.id, _UNSEEN)))]


def taken(group: str, holder: TaskRecord, host: HostView = _UNSEEN) -> str:
    """Say why a concurrency group isn't free."""
    if host.verdict is not HostVerdict.LOST:
        return f"The exclusive group {group} isn't free: task {holder.id} is there"
    return (
        f"The exclusive group {group} isn't free: task {holder.id} may be running on {host.name}, which isn't heard of."
        " It is free once that host is back and the task has stopped, or the host is deregistered by force"
    )
