"""Hosts that fall silent and come back, as a service sees it.

A host that is silent for less than lost-after changes nothing: its tasks are unknown, and counted on. After that they
are lost: replaced, counted no more, but kept, since they may run. When the host is back and what it has to report is
known, they are taken back, and compete with their replacements.

Of what may run once nothing competes: its host ends it by itself in time (`controlplane.services.isolation`), so it is
given up with the host. Were it still wanted, a host that had not heard of it yet, or hadn't come to it, would begin it
on its return, beside its replacement.
"""

from collections import defaultdict

from controlplane.events.notes import ServiceEvent
from controlplane.fleet.liveness import HostVerdict
from controlplane.services.deciding import census
from controlplane.services.deciding.draft import Draft
from controlplane.services.isolation import MARGIN_S
from controlplane.state.records import TaskRecord
from homeport import reasons
from homeport.ids import InstanceId
from homeport.status import DesiredStatus

__all__ = ["follow_hosts", "give_up_outdated"]


def follow_hosts(draft: Draft) -> None:
    """Lose and take back tasks as their hosts come and go."""
    lost: dict[InstanceId, list[TaskRecord]] = defaultdict(list)
    for task in draft.present():
        host = draft.host(task)
        if host.verdict is HostVerdict.CONNECTED:
            if task.lost_at is not None and host.heard_out:
                draft.take_back(task)
        elif task.lost_at is not None:
            _give_up_isolated(draft, task)
        elif host.verdict is HostVerdict.LOST:
            if task.desired is DesiredStatus.RUNNING:
                lost[host.id].append(task)
            draft.lose(task)
            _give_up_isolated(draft, draft.tasks[task.id])
        else:
            draft.wake(host.lost_at)
    if lost:
        _say_lost(draft, lost)


def give_up_outdated(draft: Draft, current: str) -> None:
    """Ask for the end of lost tasks that will not be wanted when their host returns: those of other revisions."""
    for task in draft.select(census.is_lost):
        if task.started_by != current:
            draft.stop(task, reasons.REPLACED_WHILE_LOST)


def _give_up_isolated(draft: Draft, task: TaskRecord) -> None:
    """Ask for the end of a lost task that its host ends by itself."""
    if task.spec.isolation_kill_s is not None:
        after_s = task.spec.isolation_kill_s + MARGIN_S
        draft.stop(task, reasons.LOST_WHEN_ISOLATED.format(lost_after_s=f"{after_s:.0f}"))


def _say_lost(draft: Draft, lost: dict[InstanceId, list[TaskRecord]]) -> None:
    tasks = sum(len(on_host) for on_host in lost.values())
    hosts = " ".join(f"(container instance {host})" for host in lost)
    draft.say(
        ServiceEvent.HEALTH_UNKNOWN,
        f"has lost {tasks} tasks on {len(lost)} container instances that have been silent for more than "
        f"{draft.timing.lost_after_s:.0f} seconds: {hosts}.",
        instances=lost,
        tasks=(task.id for on_host in lost.values() for task in on_host),
    )
