"""At most once: when the tasks of a service with `homeport:stop-when-isolated` must stop by themselves. Pure.

The control plane replaces a task once its host has been silent for the service's lost-after time. A host counts the
silence from when it *sent* the last heartbeat that was acknowledged, which is never later than when the control plane
last heard it; so what the host has ended within lost-after of that has ended before its replacement starts:

    last contact ──────► stop (SIGTERM) ──────────► kill (SIGKILL) ──► lost-after: a replacement may start
                 stop_s                stop timeouts               MARGIN_S

What an agent can't do is to stop containers while it doesn't run itself, or while its Docker Engine doesn't answer.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from controlplane.services.timing import LOST_AFTER, STOP_WHEN_ISOLATED, timing_of
from homeport.spec import ContainerSpec, TaskSpec

__all__ = [
    "MARGIN_S",
    "MIN_LOST_AFTER_S",
    "MIN_SILENCE_S",
    "at_most_once",
    "isolation_kill_s",
    "isolation_problem",
    "isolation_stop_s",
    "least_lost_after_s",
    "stop_duration_s",
    "stops_when_isolated",
]

#: What a kill may take on a busy host, until the last process is gone.
MARGIN_S: Final = 5.0
#: Silence that ends no task, however short lost-after is: three heartbeats, so that one lost connection stops nothing.
#: A host with such tasks sends them often enough for that, whatever period it is told.
MIN_SILENCE_S: Final = 15.0
#: The shortest lost-after that leaves room for both, and for a short SIGTERM.
MIN_LOST_AFTER_S: Final = 25.0


def stops_when_isolated(service_tags: Mapping[str, str], definition_tags: Mapping[str, str]) -> bool:
    """Tell whether at most one of each task may run. What the service's tags say wins over the task definition's."""
    return service_tags.get(STOP_WHEN_ISOLATED, definition_tags.get(STOP_WHEN_ISOLATED)) == "true"


def isolation_problem(service_tags: Mapping[str, str], definition_tags: Mapping[str, str]) -> str | None:
    """Say why a service can't have its tasks stopped in time; None if it can, or doesn't ask for it."""
    if not stops_when_isolated(service_tags, definition_tags):
        return None
    lost_after_s = timing_of(service_tags).lost_after_s
    if lost_after_s >= MIN_LOST_AFTER_S:
        return None
    return (
        f"Tag {STOP_WHEN_ISOLATED} needs a {LOST_AFTER} of at least {MIN_LOST_AFTER_S:.0f} seconds, since a host must "
        f"notice that it is isolated and stop the task before it is replaced, but {LOST_AFTER} was {lost_after_s:.0f}."
    )


def isolation_stop_s(lost_after_s: float, stop_timeouts: Iterable[float]) -> float:
    """Return the seconds of silence after which a task is asked to stop.

    `stop_timeouts`: those of containers that stop one after another. If lost-after is too short for them they are cut
    short by `isolation_kill_s`; never less than MIN_SILENCE_S.
    """
    return max(MIN_SILENCE_S, isolation_kill_s(lost_after_s) - sum(stop_timeouts))


def isolation_kill_s(lost_after_s: float) -> float:
    """Return the seconds of silence after which whatever still runs of a task is killed."""
    return lost_after_s - MARGIN_S


def stop_duration_s(containers: Iterable[ContainerSpec]) -> float:
    """Return the longest that stopping a task may take: stop timeouts add up along `dependsOn`, as that is the order.

    Definitions with cycles are refused before; here a cycle counts once.
    """
    by_name = {container.name: container for container in containers}

    def longest(name: str, seen: frozenset[str]) -> float:
        container = by_name[name]
        before = [
            longest(dependency.container, seen | {name})
            for dependency in container.depends_on
            if dependency.container in by_name and dependency.container not in seen
        ]
        return container.stop_timeout_s + max(before, default=0.0)

    return max((longest(name, frozenset({name})) for name in by_name), default=0.0)


def at_most_once(spec: TaskSpec, lost_after_s: float) -> TaskSpec:
    """Return the spec of a task that its agent stops when the host is isolated, in time for a replacement."""
    return replace(
        spec,
        isolation_stop_s=isolation_stop_s(lost_after_s, [stop_duration_s(spec.containers)]),
        isolation_kill_s=isolation_kill_s(lost_after_s),
    )


def least_lost_after_s(lost_after_s: float, specs: Iterable[TaskSpec]) -> float:
    """Return the silence after which tasks may be replaced: `lost_after_s`, or more for the sake of tasks that exist.

    A task keeps the times that it was made with; should its service's lost-after be shortened later, the host still
    takes its time to stop it.
    """
    return max(
        [lost_after_s, *(spec.isolation_kill_s + MARGIN_S for spec in specs if spec.isolation_kill_s is not None)]
    )
