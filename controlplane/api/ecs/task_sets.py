"""Task sets: what another program drives the deployments of an EXTERNAL service by.

A task set is a task definition and a share of the service's desired count. The service's reconciler starts and stops
its tasks; which of them serves (PRIMARY) is the other program's to say.
"""

from typing import Any, Final

from msgspec.structs import replace

from controlplane.api.arguments import check_list_size, fingerprint, tags_of
from controlplane.api.ecs.lookup import active_definition, find_cluster, local_path
from controlplane.api.ecs.service_arns import task_set_arn
from controlplane.api.ecs.service_lookup import require_service
from controlplane.api.ecs.service_members import refuse_unsupported_members
from controlplane.api.ecs.service_request import capacity_members, revision_members
from controlplane.api.ecs.task_set_views import computed_desired_count, task_set_view
from controlplane.api.ecs.tasks import TOKEN_LIFETIME_S
from controlplane.api.ecs.views import failure
from controlplane.api.errors import ApiError, InvalidParameterException, ServiceNotActiveException
from controlplane.api.registry import CALLER, Document, operation
from controlplane.context import Context
from controlplane.services.look import new_deployment_id
from controlplane.services.orders import make_order
from controlplane.state.records import IdempotencyRecord
from controlplane.state.service_records import ServiceRecord, TaskSetRecord
from controlplane.state.state import Transaction
from homeport.ids import TaskId
from homeport.story import StoryLine

__all__ = ["MAX_TASK_SETS"]

#: Task sets that a service can have: ECS's own limit.
MAX_TASK_SETS: Final = 100
_MAX_DESCRIBED: Final = 100
_MAX_TOKEN: Final = 36
_MAX_EXTERNAL_ID: Final = 255
_MAX_PERCENT: Final = 100


# ---------------------------------------------------------------- looking


@operation("ecs", "DescribeTaskSets")
def describe_task_sets(context: Context, request: Document) -> Document:
    """Describe the task sets of a service: those named, else all of them. The missing ones are in `failures`."""
    service = _service(context, request, active=False)
    check_list_size(request, "taskSets", _MAX_DESCRIBED)
    tags = "TAGS" in request.get("include", ())
    found, failures = [], []
    references = dict.fromkeys(request.get("taskSets") or ())
    if not references:
        found = sorted(context.state.task_sets.where("service", service.id), key=lambda record: record.created_at)
    for reference in references:
        record = _find(context, service, reference)
        if record is None:
            arn = context.arns.task_set(service.cluster, service.name, reference)
            failures.append(failure(reference if reference.startswith("arn:") else arn, "MISSING"))
        else:
            found.append(record)
    return {"taskSets": [task_set_view(context, record, tags=tags) for record in found], "failures": failures}


def _service(context: Context, request: Document, *, active: bool = True) -> ServiceRecord:
    """Return the EXTERNAL service that a request names. `active`: it mustn't be on its way to be deleted."""
    service = require_service(context, find_cluster(context, request["cluster"]).name, request["service"])
    if active and service.status != "ACTIVE":
        raise ServiceNotActiveException
    if service.controller != "EXTERNAL":
        raise InvalidParameterException(
            f"Task sets need a service with the EXTERNAL deployment controller; that of {service.name} is"
            f" {service.controller}."
        )
    return service


def _find(context: Context, service: ServiceRecord, reference: str) -> TaskSetRecord | None:
    """Return the service's task set of that id or ARN."""
    task_set_id = reference
    if reference.startswith("arn:"):
        path = local_path(context, reference, "task-set") or ""
        if not path.startswith(f"{service.key}/"):
            return None
        task_set_id = path.removeprefix(f"{service.key}/")
    record = context.state.task_sets.get(task_set_id)
    return record if record is not None and record.service_id == service.id else None


def _required(context: Context, service: ServiceRecord, reference: str) -> TaskSetRecord:
    record = _find(context, service, reference)
    if record is None:
        raise ApiError("TaskSet not found.", code="TaskSetNotFoundException")
    return record


# ---------------------------------------------------------------- making


@operation("ecs", "CreateTaskSet")
def create_task_set(context: Context, request: Document) -> Document:
    """Make a task set; without a scale it has no tasks at first. The same clientToken returns the same task set."""
    service = _service(context, request)
    token = _token(request)
    if token and (known := _known(context, service, request, token)) is not None:
        return {"taskSet": task_set_view(context, known, tags=True)}
    record = _new(context, service, request)
    if context.state.task_sets.count("service", service.id) >= MAX_TASK_SETS:
        raise ApiError(
            f"The service has {MAX_TASK_SETS} task sets already, and can't have more.", code="LimitExceededException"
        )
    with context.state.transaction() as transaction:
        transaction.put(record)
        _tell(context, transaction, service, "CreateTaskSet", f"{record.id} of {record.task_definition}")
        if token:
            transaction.put(
                IdempotencyRecord(
                    operation="CreateTaskSet",
                    scope=service.id,
                    token=token,
                    fingerprint=fingerprint(request),
                    at=record.created_at,
                    result=(record.id,),
                )
            )
    return {"taskSet": task_set_view(context, record, tags=True)}


def _new(context: Context, service: ServiceRecord, request: Document) -> TaskSetRecord:
    """Check a CreateTaskSet request and return what it asks for."""
    refuse_unsupported_members(request, service.controller)
    definition = active_definition(context, request["taskDefinition"])
    cluster = find_cluster(context, service.cluster)
    document: dict[str, Any] = {
        **capacity_members(request, cluster, service.scheduling_strategy),
        **revision_members(request),
    }
    if "networkConfiguration" in document and definition.document.get("networkMode") != "awsvpc":
        raise InvalidParameterException(
            "Network Configuration is not valid for the given networkMode of this task definition."
        )
    external_id: str = request.get("externalId") or ""
    if len(external_id) > _MAX_EXTERNAL_ID:
        raise InvalidParameterException(f"externalId can have at most {_MAX_EXTERNAL_ID} characters.")
    now = context.clock.now()
    record = TaskSetRecord(
        id=new_deployment_id(context),
        service_id=service.id,
        service=service.key,
        created_at=now,
        updated_at=now,
        task_definition=definition.name,
        scale_percent=_percent(request),
        external_id=external_id,
        document=document,
        stability_at=now,
        tags=tags_of(request),
    )
    # What could never start is refused at once.
    make_order(context, service, definition, document, record.id)
    return record


def _percent(request: Document) -> float:
    percent = float((request.get("scale") or {}).get("value") or 0.0)
    if not 0 <= percent <= _MAX_PERCENT:
        raise InvalidParameterException(f"scale: value must be between 0 and {_MAX_PERCENT}, but was {percent:g}.")
    return percent


# ---------------------------------------------------------------- changing


@operation("ecs", "UpdateTaskSet")
def update_task_set(context: Context, request: Document) -> Document:
    """Change a task set's share of the service's desired count."""
    service = _service(context, request)
    record = _required(context, service, request["taskSet"])
    percent = _percent(request)
    _refuse_draining(record)
    if percent != record.scale_percent:
        now = context.clock.now()
        record = replace(record, scale_percent=percent, updated_at=now, stability="STABILIZING", stability_at=now)
        with context.state.transaction() as transaction:
            transaction.put(record)
            _tell(context, transaction, service, "UpdateTaskSet", f"{record.id} scaled to {percent:g} percent")
    return {"taskSet": task_set_view(context, record, tags=True)}


@operation("ecs", "UpdateServicePrimaryTaskSet")
def update_service_primary_task_set(context: Context, request: Document) -> Document:
    """Make a task set the PRIMARY one of its service; the one that was PRIMARY is ACTIVE then."""
    service = _service(context, request)
    record = _required(context, service, request["primaryTaskSet"])
    _refuse_draining(record)
    if service.primary_task_set != record.id:
        record = replace(record, updated_at=context.clock.now())
        with context.state.transaction() as transaction:
            transaction.put(replace(service, primary_task_set=record.id))
            transaction.put(record)
            _tell(context, transaction, service, "UpdateServicePrimaryTaskSet", f"{record.id} is PRIMARY")
    return {"taskSet": task_set_view(context, record, tags=True)}


@operation("ecs", "DeleteTaskSet")
def delete_task_set(context: Context, request: Document) -> Document:
    """Delete a task set: it is DRAINING until its tasks have stopped. One that should have tasks needs `force`."""
    service = _service(context, request)
    record = _required(context, service, request["taskSet"])
    if record.status == "ACTIVE":
        if not request.get("force") and computed_desired_count(context, record) > 0:
            raise InvalidParameterException("The task set cannot be deleted while it is scaled above 0.")
        now = context.clock.now()
        record = replace(record, status="DRAINING", updated_at=now, stability="STABILIZING", stability_at=now)
        with context.state.transaction() as transaction:
            transaction.put(record)
            if service.primary_task_set == record.id:
                transaction.put(replace(service, primary_task_set=""))
            _tell(context, transaction, service, "DeleteTaskSet", record.id)
    return {"taskSet": task_set_view(context, record, tags=True)}


def _refuse_draining(record: TaskSetRecord) -> None:
    if record.status != "ACTIVE":
        raise InvalidParameterException(f"The task set {record.id} is being deleted: its status is {record.status}.")


def _tell(context: Context, transaction: Transaction, service: ServiceRecord, operation_name: str, what: str) -> None:
    """Add to the service's history who asked for what."""
    caller = f" by {CALLER.get()}" if CALLER.get() else ""
    line = StoryLine(at=context.clock.now(), event="task-set", message=f"{operation_name}{caller}: {what}", actor="api")
    transaction.tell(TaskId(service.id), line)


# ---------------------------------------------------------------- idempotency


def _token(request: Document) -> str:
    token: str = request.get("clientToken") or ""
    if len(token) > _MAX_TOKEN or not all("!" <= character <= "~" for character in token):
        raise InvalidParameterException(
            f"clientToken can have up to {_MAX_TOKEN} characters in the ASCII range 33 to 126."
        )
    return token


def _known(context: Context, service: ServiceRecord, request: Document, token: str) -> TaskSetRecord | None:
    """Return the task set that a request with this token has made. Raises if that was another request."""
    known = context.state.idempotency.get(f"CreateTaskSet/{service.id}/{token}")
    if known is None or context.clock.now() - known.at >= TOKEN_LIFETIME_S:
        return None
    record = context.state.task_sets.get(known.result[0])
    if known.fingerprint == fingerprint(request):
        return record
    arn = known.result[0] if record is None else task_set_arn(context, record)
    raise InvalidParameterException(
        f"The provided clientToken is already in use with a different CreateTaskSet request, which made {arn}."
    )
