"""Which services want to be rebalanced, and what is remembered of their moves while this process lives.

After a restart nothing is remembered: a move under way then ends as any deployment's task would, and the next one may
begin a little early.
"""

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from controlplane.api.ecs.capacity_providers import provider_constraints
from controlplane.context import Context
from controlplane.scheduling.model import Demand, candidates_of
from controlplane.services.orders import Order, next_providers, order_of
from controlplane.services.rebalance import ZONE, Moves, moves
from controlplane.services.timing import wants_rebalance
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import DeploymentRecord, ServiceRecord
from homeport.ids import InstanceId, TaskId

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
        order = order_of(self._context, service, service.deployments[0])
        if deployment is None or order is None:
            return _NONE
        tasks = tuple(tasks)
        now = self._context.clock.now()
        found = moves(
            tasks,
            candidates_of(self._context.state, service.cluster),
            self._demand(order, service, deployment, tasks),
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

    def _demand(
        self, order: Order, service: ServiceRecord, deployment: DeploymentRecord, tasks: Iterable[TaskRecord]
    ) -> Demand:
        """Return the demand by which a replacement will be placed.

        By any other it might end up where the task came from, and be moved again, for ever.
        """
        provider = next(iter(next_providers(order, service, deployment.id, tasks, 1)), "")
        return replace(
            order.demand,
            constraints=(*order.demand.constraints, *provider_constraints(self._context.state, provider)),
            avoid=frozenset(map(InstanceId, deployment.host_failures)),
        )

    def forget(self, key: str) -> None:
        """Drop what is remembered of a service that is gone."""
        self._moving.pop(key, None)
        self._last_moved_at.pop(key, None)
