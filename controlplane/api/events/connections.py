"""EventBridge's connections: how requests to API destinations prove who sends them. Secrets are never shown again."""

import re
from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from controlplane.api.errors import ApiError
from controlplane.api.events.common import limit_exceeded, missing, put
from controlplane.api.registry import Document, operation
from controlplane.api.trigger_arguments import invalid, page_after, take_page
from controlplane.context import Context
from controlplane.events.outgoing import FORBIDDEN_HEADERS, SIGNATURE, check_secrets
from controlplane.events.transform import BadInput
from controlplane.state.delivery_records import ConnectionRecord, HttpParameter
from homeport.ids import new_uuid

__all__ = ["MAX_CONNECTIONS", "find_connection"]

#: AWS's quota.
MAX_CONNECTIONS: Final = 3000

_STATE: Final = "AUTHORIZED"
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: The members that a type's credentials are in.
_CREDENTIALS: Final = {
    "API_KEY": ("ApiKeyAuthParameters", "ApiKeyName", "ApiKeyValue"),
    "BASIC": ("BasicAuthParameters", "Username", "Password"),
}
_PLACES: Final = {"header": "HeaderParameters", "query": "QueryStringParameters", "body": "BodyParameters"}


@operation("events", "CreateConnection")
def create_connection(context: Context, request: Document) -> Document:
    """Make a connection of type API_KEY or BASIC. An API key named `webhook-signature` signs (Standard Webhooks)."""
    name, now = request["Name"], context.clock.now()
    _refuse_unserved(request)
    if name in context.state.connections:
        raise ApiError(f"Connection {name} already exists.", code="ResourceAlreadyExistsException")
    if len(context.state.connections) >= MAX_CONNECTIONS:
        raise limit_exceeded(f"There can be at most {MAX_CONNECTIONS} connections.")
    blank = ConnectionRecord(
        name=name,
        id=new_uuid(context.random),
        created_at=now,
        modified_at=now,
        authorized_at=now,
        authorization=request["AuthorizationType"],
        user="",
        secret="",
        description=request.get("Description", ""),
    )
    record = _with_parameters(blank, request["AuthParameters"], now)
    put(context, record)
    return _summary(context, record, "ConnectionArn", "ConnectionState", "CreationTime", "LastModifiedTime")


@operation("events", "UpdateConnection")
def update_connection(context: Context, request: Document) -> Document:
    """Change a connection: what isn't given stays. Deliveries that wait try again at once."""
    record, now = find_connection(context, request["Name"]), context.clock.now()
    _refuse_unserved(request)
    given = request.get("AuthParameters", {})
    if request.get("AuthorizationType", record.authorization) != record.authorization:
        record = replace(record, authorization=request["AuthorizationType"], user="", secret="")
    record = replace(record, description=request.get("Description", record.description), modified_at=now)
    record = _with_parameters(record, given, now)
    put(context, record)
    members = ("ConnectionArn", "ConnectionState", "CreationTime", "LastModifiedTime", "LastAuthorizedTime")
    return _summary(context, record, *members)


@operation("events", "DescribeConnection")
def describe_connection(context: Context, request: Document) -> Document:
    """Describe a connection, without its secrets."""
    record = find_connection(context, request["Name"])
    members, user, _ = _CREDENTIALS[record.authorization]
    parameters: Document = {members: {user: record.user}}
    added = {name: list(_shown(record, place)) for place, name in _PLACES.items()}
    if any(added.values()):
        parameters["InvocationHttpParameters"] = {name: each for name, each in added.items() if each}
    description = {"Description": record.description} if record.description else {}
    return {**_summary(context, record), **description, "AuthParameters": parameters}


@operation("events", "ListConnections")
def list_connections(context: Context, request: Document) -> Document:
    """List connections by name."""
    prefix, state = request.get("NamePrefix", ""), request.get("ConnectionState", _STATE)
    records = context.state.connections.page(None, None, after=page_after(request))
    wanted = (record for record in records if record.name.startswith(prefix) and state == _STATE)
    page, more = take_page(wanted, request, key=lambda record: record.name, limit="Limit")
    return {"Connections": [_summary(context, record) for record in page], **more}


@operation("events", "DeleteConnection")
def delete_connection(context: Context, request: Document) -> Document:
    """Delete a connection. API destinations that use it become INACTIVE; what is for them waits."""
    record = find_connection(context, request["Name"])
    with context.state.transaction() as transaction:
        transaction.delete(record)
    members = ("ConnectionArn", "CreationTime", "LastModifiedTime", "LastAuthorizedTime")
    return {**_summary(context, record, *members), "ConnectionState": "DELETING"}


def find_connection(context: Context, name: str) -> ConnectionRecord:
    """Return a connection. Raises ApiError ResourceNotFoundException."""
    record = context.state.connections.get(name)
    if record is None:
        raise missing(f"Failed to describe the connection(s). Connection '{name}' does not exist.")
    return record


def _summary(context: Context, record: ConnectionRecord, *members: str) -> Document:
    whole = {
        "ConnectionArn": context.arns.connection(record.name, record.id),
        "Name": record.name,
        "ConnectionState": _STATE,
        "AuthorizationType": record.authorization,
        "CreationTime": record.created_at,
        "LastModifiedTime": record.modified_at,
        "LastAuthorizedTime": record.authorized_at,
    }
    return {name: whole[name] for name in members} if members else whole


def _shown(record: ConnectionRecord, place: str) -> Iterator[Document]:
    for each in record.parameters:
        if each.place == place:
            value = {} if each.secret else {"Value": each.value}
            yield {"Key": each.key, **value, "IsValueSecret": each.secret}


# ---------------------------------------------------------------- what is given


def _refuse_unserved(request: Document) -> None:
    given = request.get("AuthParameters", {})
    if request.get("AuthorizationType") == "OAUTH_CLIENT_CREDENTIALS" or "OAuthParameters" in given:
        raise invalid("AuthorizationType OAUTH_CLIENT_CREDENTIALS isn't served by Homeport: use API_KEY or BASIC.")
    if "InvocationConnectivityParameters" in request or "ConnectivityParameters" in given:
        raise invalid("Connectivity parameters (VPC Lattice) aren't served by Homeport: it reaches what its host does.")
    if request.get("KmsKeyIdentifier"):
        raise invalid("KmsKeyIdentifier isn't served by Homeport: there is no KMS.")


def _with_parameters(record: ConnectionRecord, given: Document, now: float) -> ConnectionRecord:
    """Return a connection with the AuthParameters given. Raises ApiError if it then isn't complete."""
    members, user, secret = _CREDENTIALS[record.authorization]
    foreign = next((each for each, _, _ in _CREDENTIALS.values() if each != members and each in given), None)
    if foreign is not None:
        raise invalid(f"{foreign} can't be given for the AuthorizationType {record.authorization}.")
    credentials = given.get(members, {})
    if credentials:
        record = replace(
            record,
            user=credentials.get(user, record.user),
            secret=credentials.get(secret, record.secret),
            authorized_at=now,
        )
    if not record.user or not record.secret:
        raise invalid(f"AuthParameters must have {members} for the AuthorizationType {record.authorization}.")
    if record.authorization == "API_KEY":
        _check_api_key(record)
    if "InvocationHttpParameters" in given:
        record = replace(record, parameters=tuple(_parameters(given["InvocationHttpParameters"])))
    return record


def _check_api_key(record: ConnectionRecord) -> None:
    name = record.user.lower()
    if name == SIGNATURE:
        try:
            check_secrets(record.secret)
        except BadInput as error:
            raise invalid(f"ApiKeyValue of {SIGNATURE} can't be used: {error}.") from error
    elif not _HEADER.fullmatch(record.user) or name in FORBIDDEN_HEADERS:
        raise invalid(f"ApiKeyName must be the name of a header that may be set, but was '{record.user:.100}'.")


def _parameters(given: Document) -> Iterator[HttpParameter]:
    for place, member in _PLACES.items():
        for each in given.get(member, ()):
            key, value = each.get("Key", ""), each.get("Value", "")
            if not key or (place == "header" and (not _HEADER.fullmatch(key) or key.lower() in FORBIDDEN_HEADERS)):
                raise invalid(f"{member} have a Key that can't be set: '{key:.100}'.")
            yield HttpParameter(place=place, key=key, value=value, secret=each.get("IsValueSecret", False))
