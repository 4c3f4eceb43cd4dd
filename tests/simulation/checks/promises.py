"""What the API answered is so: the tasks that it named are there, what it was asked for is wished, counts agree.

Here an answer is held against the history as it leaves. That it stays true afterwards follows: what was told is durable
(`history`), and tasks only advance (`tasks`). At rest the clients' ledger is held against what there is.
"""

from collections.abc import Sequence
from typing import Any, Final

from controlplane.state.records import InstanceRecord, TaskDefinitionRecord, TaskRecord
from controlplane.state.service_records import ServiceRecord
from homeport.ids import TaskId
from homeport.status import DesiredStatus
from tests.simulation.checks.history import History
from tests.simulation.checks.tasks import IDEMPOTENT, Tasks
from tests.simulation.checks.violation import Violation
from tests.simulation.clients import Ask, Outcome, Refused

__all__ = ["ANSWERS", "FAULTLESS", "Promises"]

ANSWERS: Final = "what was answered is so"
FAULTLESS: Final = "each refusal has a reason a user can act on (10)"

Document = dict[str, Any]


class Promises:
    """Checks answers, as they leave and in the end."""

    def __init__(self, history: History, tasks: Tasks) -> None:
        self._history = history
        self._tasks = tasks

    def answer(self, operation: str, document: Document, answer: Document | Refused, revision: int) -> None:
        """Look at an answer, or a refusal, that leaves the control plane."""
        if isinstance(answer, Refused):
            if answer.code == "ServerException" or not answer.message:
                raise Violation(FAULTLESS, f"{operation} was refused with {answer}")
            return
        for arn in _tasks_in(answer):
            self._task(arn, operation)
        if operation == "StopTask":
            task = self._task(answer["task"]["taskArn"], operation)
            if task.desired is not DesiredStatus.STOPPED:
                raise Violation(ANSWERS, f"StopTask was answered, and task {task.id} is wished {task.desired.name}")
        for service in [*answer.get("services", ()), *([answer["service"]] if "service" in answer else ())]:
            self._check_service(service)

    def _task(self, arn: str, operation: str) -> TaskRecord:
        task_id = TaskId(arn.rpartition("/")[2])
        task = self._history.tasks.get(task_id) or self._history.archived.get(task_id)
        if task is None:
            raise Violation(ANSWERS, f"{operation} named task {task_id}, which isn't there")
        return task

    def _check_service(self, service: Document) -> None:
        primaries = [each for each in service.get("deployments", ()) if each["status"] == "PRIMARY"]
        if service["status"] == "ACTIVE" and len(primaries) != 1:
            raise Violation(ANSWERS, f"service {service['serviceName']} has {len(primaries)} PRIMARY deployments")
        for count in ("runningCount", "pendingCount"):
            if service[count] != sum(each[count] for each in service.get("deployments", ())):
                raise Violation(ANSWERS, f"service {service['serviceName']} has {count} unlike its deployments")

    # ------------------------------------------------------------ in the end

    def request(self, ask: Ask) -> None:
        """Look at a request that is over: as many tasks as were asked for, however often it was sent."""
        if ask.operation != "RunTask":
            return
        made = self._tasks.made_by(ask.document["startedBy"])
        if made > ask.document["count"]:
            raise Violation(IDEMPOTENT, f"{ask.document['clientToken']} has made {made} tasks: {ask.document}")
        named = len(ask.answer["tasks"]) if ask.answer is not None else 0
        if named and named != made:
            raise Violation(
                IDEMPOTENT, f"{ask.document['clientToken']} was answered {named} tasks, and has made {made}"
            )

    def rest(self, ledger: Sequence[Ask]) -> None:
        """Hold the ledger against what there is."""
        for ask in ledger:
            self.request(ask)
            if ask.answer is not None and ask.operation == "RegisterTaskDefinition":
                made = ask.answer["taskDefinition"]
                name = f"{made['family']}:{made['revision']}"
                if self._history.get(TaskDefinitionRecord, name) is None:
                    raise Violation(ANSWERS, f"task definition {name} was registered, and isn't there")
        for service in self._history.all(ServiceRecord):
            self._check_count(service, [ask for ask in ledger if _concerns(ask, service.name)])
        for instance in self._history.all(InstanceRecord):
            self._check_status(instance, [ask for ask in ledger if _names(ask, instance)])

    def _check_count(self, service: ServiceRecord, asks: Sequence[Ask]) -> None:
        """The last word about a service's count holds, if it is sure which one was the last."""
        last = _last_word(asks)
        if last is None or service.scheduling_strategy == "DAEMON":
            return
        if last.operation == "DeleteService":
            if service.status == "ACTIVE":
                raise Violation(ANSWERS, f"service {service.name} was deleted, and is ACTIVE")
        elif "desiredCount" in last.document and service.desired_count != last.document["desiredCount"]:
            raise Violation(
                ANSWERS,
                f"service {service.name} was given {last.document['desiredCount']} tasks, and is to have "
                f"{service.desired_count}",
            )

    def _check_status(self, instance: InstanceRecord, asks: Sequence[Ask]) -> None:
        last = _last_word(asks)
        if last is None:
            return
        status = last.document.get("status", "INACTIVE")
        if instance.status != status:
            raise Violation(ANSWERS, f"host {instance.id} was set {status}, and is {instance.status}")


def _tasks_in(answer: Document) -> list[str]:
    return [task["taskArn"] for task in answer.get("tasks", ())]


def _concerns(ask: Ask, service: str) -> bool:
    """Whether the request may have changed the count of a service's tasks."""
    if ask.operation == "CreateService":
        return bool(ask.document["serviceName"] == service)
    if ask.operation == "UpdateService":
        return bool(ask.document["service"] == service) and "desiredCount" in ask.document
    return ask.operation == "DeleteService" and bool(ask.document["service"] == service)


def _names(ask: Ask, instance: InstanceRecord) -> bool:
    """Whether the request may have changed the status of a host."""
    arns = [*ask.document.get("containerInstances", ()), ask.document.get("containerInstance") or ""]
    changes = ask.operation in ("UpdateContainerInstancesState", "DeregisterContainerInstance")
    return changes and any(arn.endswith(f"/{instance.id}") for arn in arns)


def _last_word(asks: Sequence[Ask]) -> Ask | None:
    """Return the request that surely was carried out after all the others; None if it isn't sure which one was."""
    effective = [ask for ask in asks if not (ask.outcome is Outcome.REFUSED and ask.attempts == 1)]
    if not effective:
        return None
    last = max(effective, key=lambda ask: ask.began)
    sure = last.certain and all(ask.before(last) for ask in effective if ask is not last)
    # An answer with failures has not done what it was asked for.
    return last if sure and not (last.answer or {}).get("failures") else None
