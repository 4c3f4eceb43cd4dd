"""Services: CreateService, UpdateService, DeleteService, DescribeServices, ListServices, ListServicesByNamespace.

A command writes what is wanted, with the deployment that is to bring it about, in one transaction; the reconciler
(`controlplane.services`) sees the commit and does the rest.
"""

from typing import Final, Literal, cast

from msgspec.structs import replace

from controlplane.api import pagination
from controlplane.api.arguments import fingerprint
from controlplane.api.ecs.lookup import find_cluster
from controlplane.api.ecs.residents import check_references
from controlplane.api.ecs.service_lookup import find_service, require_service, service_reference_arn
from controlplane.api.ecs.service_request import Terms, check_create, check_update, terms_of
from controlplane.api.ecs.service_story import changes_of, tell
from controlplane.api.ecs.service_views import primary_revision, service_launch_type, service_view
from controlplane.api.ecs.tasks import TOKEN_LIFETIME_S
from controlplane.api.ecs.views import failure
from controlplane.api.errors import ApiError, InvalidParameterException, ServiceNotActiveException
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.services.deployments import begin_deployment
from controlplane.services.look import new_deployment_id, usable_hosts
from controlplane.services.orders import demand_of_revision
from controlplane.state.records import IdempotencyRecord
from controlplane.state.service_records import RevisionRecord, ServiceRecord
from controlplane.state.state import Transaction
from homeport.ids import new_hex_id

__all__: list[str] = []

_MAX_DESCRIBED: Final = 10
#: What ECS gives in one page of a list of services when a request doesn't say.
_DEFAULT_PAGE: Final = 10
_MAX_TOKEN: Final = 36
_NOT_IDEMPOTENT: Final = "Creation of service was not idempotent."


@operation("ecs", "CreateService")
def create_service(context: Context, request: Document) -> Document:
    """Make a service and begin its first deployment. What it asks for and Homeport can't do is refused at once.

    Asked again in the same words, or under the same clientToken, it returns the service there is.
    """
    cluster = find_cluster(context, request.get("cluster"))
    token = _token(request)
    existing = context.state.services.get(f"{cluster.name}/{request['serviceName']}")
    made = _made_by(context, cluster.name, request, token)
    if existing is not None and existing.status == "ACTIVE" and existing.id in made:
        return {"service": service_view(context, existing, tags=True)}
    terms = check_create(context, request, cluster)
    if existing is not None and existing.status == "DRAINING":
        raise InvalidParameterException("Unable to Start a service that is still Draining.")
    if existing is not None and existing.status == "ACTIVE":
        if not _is_as_asked(context, existing, terms):
            raise InvalidParameterException(_NOT_IDEMPOTENT)
        return {"service": service_view(context, existing, tags=True)}
    now = context.clock.now()
    service = ServiceRecord(
        id=new_hex_id(context.random),
        cluster=cluster.name,
        name=request["serviceName"],
        created_at=now,
        created_by=context.arns.root(),
        scheduling_strategy=cast("Literal['REPLICA', 'DAEMON']", terms.scheduling_strategy),
        controller=cast("Literal['ECS', 'EXTERNAL']", terms.controller),
    )
    service = _with(service, terms)
    with context.state.transaction() as transaction:
        if existing is not None:
            _forget(context, transaction, existing)
        if terms.controller == "ECS":
            service = _deploy(context, transaction, service, terms, now)
        service = _counted(context, service)
        transaction.put(service)
        tell(context, transaction, service, "CreateService", f"{terms.scheduling_strategy}, {_size(terms)}")
        if token:
            transaction.put(_idempotency(service, request, token, now))
    return {"service": service_view(context, service, tags=True)}


@operation("ecs", "UpdateService")
def update_service(context: Context, request: Document) -> Document:
    """Change a service. A change of what its tasks are made of, or forceNewDeployment, begins a new deployment.

    The answer shows the new deployment already, PRIMARY, before those that it replaces.
    """
    cluster = find_cluster(context, request.get("cluster"))
    service = require_service(context, cluster.name, request["service"])
    if service.status != "ACTIVE":
        raise ServiceNotActiveException
    before = terms_of(service, primary_revision(context, service) if service.controller == "ECS" else None)
    after = check_update(context, request, cluster, service, before)
    changed = (after.task_definition, after.document) != (before.task_definition, before.document)
    forced = bool(request.get("forceNewDeployment"))
    with context.state.transaction() as transaction:
        service = _with(service, after)
        if changed or forced:
            service = _deploy(context, transaction, service, after, context.clock.now())
        service = _counted(context, service)
        transaction.put(service)
        if what := changes_of(before, after, forced=forced):
            tell(context, transaction, service, "UpdateService", what)
    return {"service": service_view(context, service, tags=False)}


@operation("ecs", "DeleteService")
def delete_service(context: Context, request: Document) -> Document:
    """Delete a service: it is DRAINING until its tasks have stopped, then INACTIVE. One that is DRAINING is returned.

    A REPLICA service that is scaled above 0, and one with task sets, needs `force`.
    """
    cluster = find_cluster(context, request.get("cluster"))
    service = require_service(context, cluster.name, request["service"])
    if service.status == "INACTIVE":
        raise ServiceNotActiveException
    if service.status == "DRAINING":
        return {"service": service_view(context, service, tags=False)}
    if not request.get("force"):
        if service.desired_count > 0 and service.scheduling_strategy == "REPLICA":
            raise InvalidParameterException("The service cannot be stopped while it is scaled above 0.")
        if any(s.status == "ACTIVE" for s in context.state.task_sets.where("service", service.id)):
            raise InvalidParameterException("The service cannot be stopped while deployments are active.")
    draining = replace(service, status="DRAINING", desired_count=0, deleted_at=context.clock.now())
    with context.state.transaction() as transaction:
        transaction.put(draining)
        tell(context, transaction, service, "DeleteService", f"desiredCount was {service.desired_count}")
    return {"service": service_view(context, draining, tags=False)}


@operation("ecs", "DescribeServices")
def describe_services(context: Context, request: Document) -> Document:
    """Describe up to 10 services by name or ARN, deleted ones for a day. The missing ones are in `failures`."""
    cluster = find_cluster(context, request.get("cluster"))
    tags = "TAGS" in request.get("include", ())
    services, failures = [], []
    for reference in check_references(request["services"], what="services", maximum=_MAX_DESCRIBED):
        service = find_service(context, cluster.name, reference)
        if service is None:
            failures.append(failure(service_reference_arn(context, cluster.name, reference), "MISSING"))
        else:
            services.append(service_view(context, service, tags=tags))
    return {"services": services, "failures": failures}


@operation("ecs", "ListServices")
def list_services(context: Context, request: Document) -> Document:
    """List the ARNs of a cluster's ACTIVE services, by name."""
    cluster = find_cluster(context, request.get("cluster")).name
    wanted, strategy = request.get("launchType"), request.get("schedulingStrategy")
    found = (
        service
        for service in context.state.services.page(
            "cluster_status", (cluster, "ACTIVE"), after=pagination.after(request)
        )
        # Services that ECS itself would manage (Express Mode) aren't made here.
        if request.get("resourceManagementType") != "ECS"
        and (not strategy or service.scheduling_strategy == strategy)
        and (not wanted or service_launch_type(context, service) == wanted)
    )
    page = pagination.take(found, request, key=lambda service: service.key, default=_DEFAULT_PAGE)
    return {"serviceArns": [context.arns.service(cluster, service.name) for service in page.items], **page.more}


@operation("ecs", "ListServicesByNamespace")
def list_services_by_namespace(_: Context, request: Document) -> Document:
    """Refuse: a namespace is one of Cloud Map, and there are none here."""
    raise ApiError(
        f"The specified namespace was not found: '{request['namespace']:.300}'. There is no Cloud Map here.",
        code="NamespaceNotFoundException",
    )


# ---------------------------------------------------------------- writing


def _size(terms: Terms) -> str:
    """What a new service is, for its history."""
    count = "one task per host" if terms.scheduling_strategy == "DAEMON" else f"desiredCount {terms.desired_count}"
    return f"{count}, {terms.task_definition or 'by task sets'}"


def _with(service: ServiceRecord, terms: Terms) -> ServiceRecord:
    return replace(
        service,
        desired_count=terms.desired_count,
        deployment_configuration=terms.deployment_configuration,
        given=terms.given,
        settings=terms.settings,
        tags=terms.tags,
    )


def _deploy(
    context: Context, transaction: Transaction, service: ServiceRecord, terms: Terms, now: float
) -> ServiceRecord:
    """Put a new revision and its deployment, end those under way, and return the service with it as PRIMARY."""
    revision = RevisionRecord(
        id=str(context.random.randrange(10**18, 10**19)),
        service_id=service.id,
        service=service.key,
        created_at=now,
        task_definition=terms.task_definition,
        document=terms.document,
    )
    service, changed = begin_deployment(
        service,
        tuple(d for d in map(context.state.deployments.get, service.deployments) if d is not None),
        deployment_id=new_deployment_id(context),
        arn_id=new_hex_id(context.random),
        revision=revision.id,
        now=now,
    )
    transaction.put(revision)
    for deployment in changed:
        transaction.put(deployment)
    return service


def _counted(context: Context, service: ServiceRecord) -> ServiceRecord:
    """Return a DAEMON with the number of hosts it is for, so that a waiter that looks at once isn't content with none.

    The reconciler, which knows about silent hosts, keeps the number from then on.
    """
    demand = demand_of_revision(context, service) if service.scheduling_strategy == "DAEMON" else None
    return service if demand is None else replace(service, desired_count=len(usable_hosts(context, service, demand)))


def _forget(context: Context, transaction: Transaction, service: ServiceRecord) -> None:
    """Delete what is left of the deleted service whose name is taken. Its events stay in the history."""
    state = context.state
    for table in (state.deployments, state.revisions, state.events, state.task_sets):
        for record in list(table.where("service", service.id)):
            transaction.delete(record)


# ---------------------------------------------------------------- idempotency


def _token(request: Document) -> str:
    token: str = request.get("clientToken") or ""
    if len(token) > _MAX_TOKEN:
        raise InvalidParameterException(f"idempotency token longer than {_MAX_TOKEN}.")
    if not all("!" <= character <= "~" for character in token):
        raise InvalidParameterException("clientToken can have characters in the ASCII range 33 to 126 only.")
    return token


def _idempotency(service: ServiceRecord, request: Document, token: str, now: float) -> IdempotencyRecord:
    return IdempotencyRecord(
        operation="CreateService",
        scope=service.cluster,
        token=token,
        fingerprint=fingerprint(request),
        at=now,
        result=(service.id,),
    )


def _made_by(context: Context, cluster: str, request: Document, token: str) -> tuple[str, ...]:
    """Return the id of the service that this very request, by its token, has made, whatever has become of it since.

    Raises InvalidParameterException if the token stands for another request.
    """
    known = context.state.idempotency.get(f"CreateService/{cluster}/{token}") if token else None
    if known is None or context.clock.now() - known.at >= TOKEN_LIFETIME_S:
        return ()
    if known.fingerprint != fingerprint(request):
        raise InvalidParameterException(_NOT_IDEMPOTENT)
    return known.result


def _is_as_asked(context: Context, service: ServiceRecord, terms: Terms) -> bool:
    """Tell whether the service is in everything what is asked for."""
    revision = primary_revision(context, service) if service.controller == "ECS" else None
    # A DAEMON's count is its hosts'.
    wanted = replace(terms, desired_count=service.desired_count) if terms.scheduling_strategy == "DAEMON" else terms
    return terms_of(service, revision) == wanted
