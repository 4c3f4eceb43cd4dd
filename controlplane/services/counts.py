"""How many tasks deployments and task sets have, as ECS counts them. Read off a tally: it costs nothing per task."""

from collections.abc import Iterable
from typing import NamedTuple

from controlplane.state.service_records import ServiceRecord
from controlplane.state.state import State

__all__ = ["Counts", "count_tasks", "count_tasks_of_service"]


class Counts(NamedTuple):
    """`running`: RUNNING. `pending`: on their way there. What is lost with its host is neither."""

    running: int
    pending: int


def count_tasks(state: State, *started_by: str) -> Counts:
    """Count the tasks of deployments and task sets, named by their ids."""
    return Counts(_sum(state, started_by, "running"), _sum(state, started_by, "pending"))


def count_tasks_of_service(state: State, service: ServiceRecord) -> Counts:
    """Count the tasks of all of a service's live deployments and task sets."""
    task_sets = state.task_sets.where("service", service.id) if service.controller == "EXTERNAL" else ()
    return count_tasks(state, *service.deployments, *(task_set.id for task_set in task_sets))


def _sum(state: State, names: Iterable[str], phase: str) -> int:
    return sum(state.tasks.count("deployment_count", (name, phase)) for name in names)
