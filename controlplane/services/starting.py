"""Starting a service's tasks: choosing hosts, by capacity provider, and saying why where there is none."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from controlplane.api.ecs.capacity_providers import provider_constraints
from controlplane.api.errors import ApiError
from controlplane.context import Context
from controlplane.events.notes import ServiceEvent
from controlplane.scheduling.filters import filters_of, first_refusal, would_fit_without
from controlplane.scheduling.model import Candidate, Demand, Placement, Refusal, candidate_of
from controlplane.scheduling.sentences import services_sentence
from controlplane.services.deciding import census
from controlplane.services.model import Blocked, Say, Snapshot, Start
from controlplane.services.orders import Order, next_providers, order_of
from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.state.state import Transaction
from homeport.ids import InstanceId, TaskId

__all__ = ["MAX_STARTS", "Starter"]

#: Tasks started in one event-loop turn: some 10 ms. Requests and heartbeats have theirs before more are started.
MAX_STARTS: Final = 50
#: That tasks can't be placed, for the same reasons, is said again after this many seconds.
_SAY_AGAIN_S: Final = 6 * 3600.0


class Starter:
    """Starts tasks for one decision, within its transaction."""

    def __init__(self, context: Context, snapshot: Snapshot, transaction: Transaction) -> None:
        self.started: list[TaskId] = []
        #: What is beyond MAX_STARTS.
        self.left: list[Start] = []
        self.blocked: Blocked | None = None
        self._context = context
        self._state = context.state
        self._snapshot = snapshot
        self._service = snapshot.service
        self._transaction = transaction
        self._orders: dict[str, Order | None] = {}
        #: Deployment -> what the last tasks that found no host were refused for.
        self._unplaced: dict[str, Placement] = {}
        self._failed: dict[str, str] = {}

    def order(self, deployment: str) -> Order | None:
        """Return how tasks of a deployment or task set are made; None if they can't be (any more)."""
        if deployment not in self._orders:
            try:
                self._orders[deployment] = order_of(self._context, self._service, deployment)
            except ApiError as error:
                self._failed[deployment] = error.message
                self._orders[deployment] = None
        return self._orders[deployment]

    def start(self, action: Start) -> None:
        """Start what can be, MAX_STARTS at most; note what finds no host in `blocked`, and what is beyond in `left`."""
        now = min(action.count, MAX_STARTS - len(self.started))
        if now < action.count:
            self.left.append(replace(action, count=action.count - now))
            action = replace(action, count=now)
        if not now:
            return
        order = self.order(action.deployment)
        if order is None:
            self._failed.setdefault(action.deployment, "its task definition does not exist any more.")
            self.blocked = Blocked(reasons={"TASK_DEFINITION": 1})
            return
        if action.host is not None and self._start_on(action, order, action.host):
            return
        if self._service.scheduling_strategy == "DAEMON":
            return  # its place is on that host and no other
        for provider, count in self._providers(action, order).items():
            self._place(action, order, provider, count)

    # ------------------------------------------------------------ on a host that is given

    def _start_on(self, action: Start, order: Order, host: InstanceId) -> bool:
        instance = self._state.instances.get(host)
        if instance is None:
            return False
        replaced = None if action.replaces is None else self._state.tasks.get(action.replaces)
        if replaced is not None and replaced.instance_id == host:
            candidate = candidate_of(self._state, instance)
            obstacle = first_refusal(candidate, order.demand, filters_of(order.demand))
            if obstacle is not None and not would_fit_without(candidate, order.demand, [replaced]):
                return False
        provider = replaced.capacity_provider if replaced is not None else ""
        if not provider:
            provider = next(iter(self._providers(action, order)), "")
        refusal = self._launch(action, order, instance, provider, why="the service's place for this task is here")
        if refusal is not None:
            self._note(action.deployment, order.demand, Placement((), (refusal,), considered=1))
        return refusal is None

    # ------------------------------------------------------------ wherever they fit

    def _providers(self, action: Start, order: Order) -> Counter[str]:
        tasks = self._state.tasks.where("service", (self._service.cluster, self._service.group))
        return next_providers(order, self._service, action.deployment, tasks, action.count)

    def _place(self, action: Start, order: Order, provider: str, count: int) -> None:
        extra = provider_constraints(self._state, provider) if provider else ()
        demand = replace(order.demand, constraints=(*order.demand.constraints, *extra), avoid=action.avoid)
        placement = self._context.rankings.place(
            self._state, self._service.cluster, demand, count, self._context.random
        )
        strategy = ", ".join(f"{s.type} {s.field}".strip() for s in demand.strategy)
        why = f"chosen by {strategy} among {placement.considered} hosts"
        refusals = list(placement.refusals)
        for instance_id in placement.chosen:
            instance = self._state.instances.get(instance_id)
            assert instance is not None, "it was a candidate in this same turn"
            refusal = self._launch(action, order, instance, provider, why=why)
            if refusal is not None:
                refusals.append(refusal)
        if len(placement.chosen) < count or len(refusals) > len(placement.refusals):
            self._note(action.deployment, demand, replace(placement, refusals=tuple(refusals)))

    def _launch(
        self, action: Start, order: Order, instance: InstanceRecord, provider: str, *, why: str
    ) -> Refusal | None:
        if action.replaces is not None:
            why = f"{why}; it is prepared to take the place of task {action.replaces}"
        outcome = order.launcher.put_on(
            self._transaction,
            order.demand,
            instance,
            why=why,
            capacity_provider=provider,
            wanted_at=action.wanted_at,
            replaces=action.replaces,
        )
        if isinstance(outcome, Refusal):
            return outcome
        self.started.append(outcome.id)
        return None

    # ------------------------------------------------------------ what couldn't be placed

    def _note(self, deployment: str, demand: Demand, placement: Placement) -> None:
        self._unplaced[deployment] = placement
        reasons = dict(self.blocked.reasons) if self.blocked else {}
        for reason, count in placement.by_reason().items():
            reasons[reason] = reasons.get(reason, 0) + count
        by_own = self.blocked is not None and self.blocked.by_own_tasks
        self.blocked = Blocked(
            reasons=reasons,
            considered=placement.considered,
            by_own_tasks=by_own or self._held_by_own_tasks(deployment, demand),
        )

    def _held_by_own_tasks(self, deployment: str, demand: Demand) -> bool:
        """Tell whether some host would take the task if this service's outdated and sick tasks had left it."""
        outdated: defaultdict[InstanceId, list[TaskRecord]] = defaultdict(list)
        for task in self._snapshot.tasks:
            others = task.started_by != deployment or census.is_sick(task)
            if task.instance_id is not None and others and task.lost_at is None:
                outdated[task.instance_id].append(task)
        return any(
            would_fit_without(candidate, demand, outdated[candidate.id]) for candidate in self._candidates(outdated)
        )

    def _candidates(self, hosts: Iterable[InstanceId]) -> Iterable[Candidate]:
        for host in hosts:
            instance = self._state.instances.get(host)
            if instance is not None:
                yield candidate_of(self._state, instance)

    def _is_in_own_way(self) -> bool:
        """Whether it is the service's own tasks that hold the room: the deployment then stops them first."""
        return self.blocked is not None and self.blocked.by_own_tasks

    def unplaced_event(self) -> Say | None:
        """Return the event that is due about tasks without a host, having noted on its deployment that it was said.

        Where its own outdated tasks are in the way nothing is wrong, and nothing is said.
        """
        found: Say | None = None
        now = self._context.clock.now()
        for deployment_id in {*self._unplaced, *self._failed, *self._orders}:
            deployment = self._state.deployments.get(deployment_id)
            if deployment is None:
                continue
            if deployment_id in self._failed:
                event, reason = ServiceEvent.TASK_CONFIGURATION_FAILURE, self._failed[deployment_id]
                kinds = text = f"was unable to start a task. Reason: {reason}"
            elif deployment_id in self._unplaced and not self._is_in_own_way():
                placement = self._unplaced[deployment_id]
                event, reason = ServiceEvent.TASK_PLACEMENT_FAILURE, ", ".join(sorted(placement.by_reason()))
                kinds, text = reason or "none", services_sentence(placement)
            else:
                event, reason, kinds, text = None, "", "", ""
            said_at = deployment.placement_event_at
            if kinds == deployment.placement_event and (said_at is None or now - said_at < _SAY_AGAIN_S):
                continue
            self._transaction.put(replace(deployment, placement_event=kinds, placement_event_at=now if kinds else None))
            found = Say(message=text, event=event, reason=reason) if text else found
        return found
