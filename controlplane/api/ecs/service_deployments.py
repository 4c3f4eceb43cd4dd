"""Service deployments: list and describe them and their revisions, stop one, let a paused one go on.

A service deployment is a DeploymentRecord that isn't a rollback; what becomes of its rollback is told in its status.
Stopping and continuing only note the wish: the service's reconciler sees the change and acts on it.
"""

from typing import Final

from msgspec.structs import replace

from controlplane.api import pagination
from controlplane.api.ecs.lookup import find_cluster
from controlplane.api.ecs.residents import check_references
from controlplane.api.ecs.service_arns import find_deployment, find_revision, service_deployment_arn
from controlplane.api.ecs.service_deployment_views import brief_view, deployment_view, revision_view
from controlplane.api.ecs.service_lookup import require_service
from controlplane.api.ecs.views import failure
from controlplane.api.errors import ApiError, ConflictException, InvalidParameterException
from controlplane.api.registry import CALLER, Document, operation
from controlplane.context import Context
from controlplane.state.service_records import DeploymentRecord, HookState, ServiceDeploymentStatus, ServiceRecord
from homeport.ids import TaskId
from homeport.story import StoryLine

__all__: list[str] = []

_MAX_DESCRIBED: Final = 20
_DEFAULT_PAGE: Final = 20

_UNDER_WAY: Final = (ServiceDeploymentStatus.PENDING, ServiceDeploymentStatus.IN_PROGRESS)
#: On their way to an end already: asking again changes nothing, as in ECS.
_ENDING: Final = (
    ServiceDeploymentStatus.STOP_REQUESTED,
    ServiceDeploymentStatus.ROLLBACK_REQUESTED,
    ServiceDeploymentStatus.ROLLBACK_IN_PROGRESS,
)


# ---------------------------------------------------------------- looking


@operation("ecs", "ListServiceDeployments")
def list_service_deployments(context: Context, request: Document) -> Document:
    """List a service's deployments, the newest first."""
    service = require_service(context, find_cluster(context, request.get("cluster")).name, request["service"])
    statuses, created = request.get("status") or (), request.get("createdAt") or {}
    before, after = created.get("before"), created.get("after")
    behind = pagination.after(request)
    found = sorted(
        (
            deployment
            for deployment in context.state.deployments.where("service", service.id)
            if not deployment.rollback_of
            and (not statuses or deployment.status in statuses)
            and (before is None or deployment.created_at < before)
            and (after is None or deployment.created_at > after)
            and (behind is None or _age_key(deployment) < behind)
        ),
        key=_age_key,
        reverse=True,
    )
    page = pagination.take(found, request, key=_age_key, default=_DEFAULT_PAGE)
    return {"serviceDeployments": [brief_view(context, deployment) for deployment in page.items], **page.more}


def _age_key(deployment: DeploymentRecord) -> str:
    """What deployments are listed by: their creation, to the microsecond; of equal ones the ARN decides."""
    return f"{deployment.created_at:017.6f}/{deployment.arn_id}"


@operation("ecs", "DescribeServiceDeployments")
def describe_service_deployments(context: Context, request: Document) -> Document:
    """Describe up to 20 service deployments."""
    found, failures = [], []
    for arn in check_references(request["serviceDeploymentArns"], what="serviceDeploymentArns", maximum=_MAX_DESCRIBED):
        deployment = find_deployment(context, arn)
        if deployment is None:
            failures.append(failure(arn, "MISSING"))
        else:
            found.append(deployment_view(context, deployment))
    return {"serviceDeployments": found, "failures": failures}


@operation("ecs", "DescribeServiceRevisions")
def describe_service_revisions(context: Context, request: Document) -> Document:
    """Describe up to 20 service revisions."""
    found, failures = [], []
    for arn in check_references(request["serviceRevisionArns"], what="serviceRevisionArns", maximum=_MAX_DESCRIBED):
        revision = find_revision(context, arn)
        if revision is None:
            failures.append(failure(arn, "MISSING"))
        else:
            found.append(revision_view(context, revision))
    return {"serviceRevisions": found, "failures": failures}


# ---------------------------------------------------------------- stopping


@operation("ecs", "StopServiceDeployment")
def stop_service_deployment(context: Context, request: Document) -> Document:
    """Ask for a deployment under way to be rolled back (ROLLBACK, the default) or left as it is (ABORT)."""
    arn = request["serviceDeploymentArn"]
    deployment, service = _find(context, arn)
    rolls_back = (request.get("stopType") or "ROLLBACK") == "ROLLBACK"
    if deployment.status in _UNDER_WAY:
        if rolls_back:
            _check_rollback(service, deployment)
        _request_end(context, deployment, "StopServiceDeployment", rolls_back=rolls_back)
    elif deployment.status not in _ENDING:
        raise ConflictException(
            f"The service deployment can't be stopped: it has ended already, as {deployment.status.value}.", [arn]
        )
    return {"serviceDeploymentArn": service_deployment_arn(context, deployment)}


def _find(context: Context, arn: str) -> tuple[DeploymentRecord, ServiceRecord]:
    deployment = find_deployment(context, arn)
    service = None if deployment is None else context.state.services.get(deployment.service)
    if deployment is None or service is None:
        raise ApiError("Service deployment not found.", code="ServiceDeploymentNotFoundException")
    return deployment, service


def _check_rollback(service: ServiceRecord, deployment: DeploymentRecord) -> None:
    if service.stable_revision in ("", deployment.revision):
        raise InvalidParameterException(
            "The service deployment can't be rolled back: no earlier service deployment has completed. "
            "stopType ABORT stops it without a rollback."
        )


def _request_end(
    context: Context,
    deployment: DeploymentRecord,
    operation_name: str,
    *,
    rolls_back: bool,
    hooks: tuple[HookState, ...] | None = None,
) -> None:
    """Put the deployment with the wish, and tell who wished it in the service's history."""
    now = context.clock.now()
    wish = "rollback" if rolls_back else "stop"
    asked = replace(
        deployment,
        status=ServiceDeploymentStatus.ROLLBACK_REQUESTED if rolls_back else ServiceDeploymentStatus.STOP_REQUESTED,
        status_reason=f"Service deployment {wish} requested by a user ({operation_name}).",
        hooks=deployment.hooks if hooks is None else hooks,
        updated_at=now,
    )
    _put(context, asked, f"{operation_name}{_by_caller()}: {wish} of {deployment.id} requested", now)


# ---------------------------------------------------------------- pausing


@operation("ecs", "ContinueServiceDeployment")
def continue_service_deployment(context: Context, request: Document) -> Document:
    """Let a deployment that waits at a PAUSE hook go on (CONTINUE, the default), or be rolled back (ROLLBACK)."""
    deployment, service = _find(context, request["serviceDeploymentArn"])
    hook = next((hook for hook in deployment.hooks if hook.id == request["hookId"]), None)
    if hook is None:
        raise InvalidParameterException(
            f"The service deployment has no lifecycle hook with the id {request['hookId']}."
        )
    if hook.status != "AWAITING_ACTION":
        raise InvalidParameterException(f"The lifecycle hook {hook.id} awaits no action: its status is {hook.status}.")
    if deployment.finished_at is not None or deployment.status in _ENDING:
        raise InvalidParameterException(
            f"The service deployment isn't paused: its status is {deployment.status.value}."
        )
    if request.get("action") == "ROLLBACK":
        _check_rollback(service, deployment)
        hooks = _with(deployment, replace(hook, status="FAILED"))
        _request_end(context, deployment, "ContinueServiceDeployment", rolls_back=True, hooks=hooks)
    else:
        now = context.clock.now()
        going_on = replace(deployment, hooks=_with(deployment, replace(hook, status="SUCCEEDED")), updated_at=now)
        text = f"ContinueServiceDeployment{_by_caller()}: {deployment.id} goes on after {hook.stage}"
        _put(context, going_on, text, now)
    return {"serviceDeploymentArn": service_deployment_arn(context, deployment)}


def _with(deployment: DeploymentRecord, hook: HookState) -> tuple[HookState, ...]:
    return tuple(hook if known.id == hook.id else known for known in deployment.hooks)


def _put(context: Context, deployment: DeploymentRecord, message: str, now: float) -> None:
    with context.state.transaction() as transaction:
        transaction.put(deployment)
        line = StoryLine(at=now, event="deployment-requested", message=message, actor="api")
        transaction.tell(TaskId(deployment.service_id), line)


def _by_caller() -> str:
    return f" by {CALLER.get()}" if CALLER.get() else ""
