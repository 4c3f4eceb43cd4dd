"""Which services want to be rebalanced, and what is remembered of their moves while this process lives.

After a restart nothing is remembered: a move under way then ends as any deployment's task would, and the next one may
begin a little early.
"""

from collections.abc import Iterable
from typing import Final

from controlplane.context import Context
from controlplane.scheduling.model import candidates_of
from controlplane.services.orders import demand_of_revision
from controlplane.services.rebalance import ZONE, Moves, moves
from controlplane.services.timing import wants_rebalance
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import ServiceRecord
from homeport.ids import TaskId

__all__ = ["Rebalancer", "is_rebalanced"]

_NONE: Final = Moves()


def is_rebalanced(service: ServiceRecord) -> bool:
    """Tell whether a service's tasks may be moved to hosts that join or return."""
    opted_in = wants_rebalance(service.tags) or service.settings.get("availabilityZoneRebalancing") == "ENABLED"
    return opted_in and service.scheduling_strategy == "REPLICA" and service.controller == "ECS"


class Rebalancer:
    """Names the tasks to move, one service at a time."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._moving: dict[str, frozenset[TaskId]] = {}
        self._last_moved_at: dict[str, float] = {}

    def moves(self, service: ServiceRecord, tasks: Iterable[TaskRecord]) -> Moves:
        """Return what of the service should be elsewhere; nothing for one that hasn't opted in."""
        if not is_rebalanced(service) or service.status != "ACTIVE" or not service.deployments:
            return _NONE
        deployment = self._context.state.deployments.get(service.deployments[0])
        demand = demand_of_revision(self._context, service)
        if deployment is None or demand is None:
            return _NONE
        now = self._context.clock.now()
        found = moves(
            tasks,
            candidates_of(self._context.state, service.cluster),
            demand,
            desired=service.desired_count,
            steady=deployment.steady and len(service.deployments) == 1,
            now=now,
            last_moved_at=self._last_moved_at.get(service.key),
            moving=self._moving.get(service.key, frozenset()),
            over=None if wants_rebalance(service.tags) else (ZONE,),
        )
        self._moving[service.key] = found.named
        if found.begun:
            self._last_moved_at[service.key] = now
        return found

    def forget(self, key: str) -> None:
        """Drop what is remembered of a service that is gone."""
        self._moving.pop(key, None)
        self._last_moved_at.pop(key, None)
