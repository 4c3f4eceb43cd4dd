"""EventBridge's API destinations: the HTTP endpoints that events are sent to."""

from typing import Final

from msgspec.structs import replace

from controlplane.api.errors import ApiError
from controlplane.api.events.common import limit_exceeded, missing, put
from controlplane.api.registry import Document, operation
from controlplane.api.trigger_arguments import invalid, page_after, take_page
from controlplane.context import Context
from controlplane.events.endpoint import BadEndpoint, check_endpoint
from controlplane.events.targets import connection_of
from controlplane.state.delivery_records import ApiDestinationRecord, ConnectionRecord
from homeport.ids import new_uuid

__all__ = ["MAX_DESTINATIONS"]

#: AWS's quota.
MAX_DESTINATIONS: Final = 3000


@operation("events", "CreateApiDestination")
def create_api_destination(context: Context, request: Document) -> Document:
    """Make an API destination: https anywhere, http within private networks."""
    name, now = request["Name"], context.clock.now()
    if name in context.state.api_destinations:
        raise ApiError(f"An api-destination '{name}' already exists.", code="ResourceAlreadyExistsException")
    if len(context.state.api_destinations) >= MAX_DESTINATIONS:
        raise limit_exceeded(f"There can be at most {MAX_DESTINATIONS} API destinations.")
    connection = _connection(context, request["ConnectionArn"])
    blank = ApiDestinationRecord(
        name=name,
        id=new_uuid(context.random),
        created_at=now,
        modified_at=now,
        connection=connection.name,
        connection_id=connection.id,
        endpoint=request["InvocationEndpoint"],
        method=request["HttpMethod"],
    )
    record = _changed(context, blank, request)
    put(context, record)
    return _answer(context, record)


@operation("events", "UpdateApiDestination")
def update_api_destination(context: Context, request: Document) -> Document:
    """Change an API destination: what isn't given stays. Deliveries that wait try again at once."""
    record = replace(_find(context, request["Name"]), modified_at=context.clock.now())
    record = _changed(context, record, request)
    put(context, record)
    return _answer(context, record)


@operation("events", "DescribeApiDestination")
def describe_api_destination(context: Context, request: Document) -> Document:
    """Describe an API destination. It is INACTIVE without its connection."""
    record = _find(context, request["Name"])
    description = {"Description": record.description} if record.description else {}
    return {**_view(context, record), **description}


@operation("events", "ListApiDestinations")
def list_api_destinations(context: Context, request: Document) -> Document:
    """List API destinations by name."""
    prefix, arn = request.get("NamePrefix", ""), request.get("ConnectionArn")
    records = context.state.api_destinations.page(None, None, after=page_after(request))
    wanted = (
        record
        for record in records
        if record.name.startswith(prefix) and arn in (None, _connection_arn(context, record))
    )
    page, more = take_page(wanted, request, key=lambda record: record.name, limit="Limit")
    return {"ApiDestinations": [_view(context, record) for record in page], **more}


@operation("events", "DeleteApiDestination")
def delete_api_destination(context: Context, request: Document) -> Document:
    """Delete an API destination. What is for it waits, until it is too old or the target is removed."""
    record = _find(context, request["Name"])
    with context.state.transaction() as transaction:
        transaction.delete(record)
    return {}


def _changed(context: Context, record: ApiDestinationRecord, request: Document) -> ApiDestinationRecord:
    """Return a destination with what a request gives of it. Raises ApiError ValidationException."""
    if "ConnectionArn" in request:
        connection = _connection(context, request["ConnectionArn"])
        record = replace(record, connection=connection.name, connection_id=connection.id)
    record = replace(
        record,
        endpoint=request.get("InvocationEndpoint", record.endpoint),
        method=request.get("HttpMethod", record.method),
        rate=request.get("InvocationRateLimitPerSecond", record.rate),
        description=request.get("Description", record.description),
    )
    try:
        check_endpoint(record.endpoint)
    except BadEndpoint as error:
        raise invalid(f"InvocationEndpoint can't be used: {error}.") from error
    return record


def _find(context: Context, name: str) -> ApiDestinationRecord:
    record = context.state.api_destinations.get(name)
    if record is None:
        raise missing(f"Failed to describe the api-destination(s). An api-destination '{name}' does not exist.")
    return record


def _connection(context: Context, arn: str) -> ConnectionRecord:
    name = arn.partition(":connection/")[2].partition("/")[0]
    found = context.state.connections.get(name)
    if found is None or arn != context.arns.connection(found.name, found.id):
        raise missing(f"Connection '{arn:.300}' does not exist.")
    return found


def _connection_arn(context: Context, record: ApiDestinationRecord) -> str:
    return context.arns.connection(record.connection, record.connection_id)


def _answer(context: Context, record: ApiDestinationRecord) -> Document:
    view = _view(context, record)
    members = ("ApiDestinationArn", "ApiDestinationState", "CreationTime", "LastModifiedTime")
    return {name: view[name] for name in members}


def _view(context: Context, record: ApiDestinationRecord) -> Document:
    return {
        "ApiDestinationArn": context.arns.api_destination(record.name, record.id),
        "Name": record.name,
        "ApiDestinationState": "ACTIVE" if connection_of(context.state, record) else "INACTIVE",
        "ConnectionArn": _connection_arn(context, record),
        "InvocationEndpoint": record.endpoint,
        "HttpMethod": record.method,
        "InvocationRateLimitPerSecond": record.rate,
        "CreationTime": record.created_at,
        "LastModifiedTime": record.modified_at,
    }
