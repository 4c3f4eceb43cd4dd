"""The HTTP request that an event is brought to an API destination by, signed if its connection says so. Pure.

A connection of type API_KEY whose key is named `webhook-signature` and has the value `whsec_...` signs each request as
the Standard Webhooks specification says, instead of sending the key: HMAC-SHA256 over `ID.TIMESTAMP.BODY`. Several
secrets, separated by spaces, sign each, so that they can be changed without a gap.
"""

import base64
import binascii
import hashlib
import hmac
import random
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec
from yarl import URL

from controlplane.events.transform import BadInput, Missing, follow
from controlplane.state.delivery_records import ApiDestinationRecord, ConnectionRecord
from homeport import __version__

__all__ = [
    "FORBIDDEN_HEADERS",
    "SIGNATURE",
    "Outgoing",
    "check_secrets",
    "new_secret",
    "outgoing",
    "signature",
]

#: The header of the signature, and the name of an API key that signs.
SIGNATURE: Final = "webhook-signature"
_SECRET: Final = "whsec_"  # noqa: S105 - what a secret begins with
#: Bytes of a key, by the specification.
_KEY_BYTES: Final = range(24, 65)

#: Headers that are the connection's own affair, or ours.
FORBIDDEN_HEADERS: Final = frozenset(
    {
        *("connection", "content-length", "content-encoding", "expect", "host", "keep-alive", "te", "trailer"),
        *("transfer-encoding", "upgrade", "proxy-connection", "proxy-authenticate", "proxy-authorization"),
        *("webhook-id", "webhook-timestamp"),
    }
)
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Outgoing(NamedTuple):
    """A request. `body` None: it has none."""

    method: str
    url: URL
    headers: dict[str, str]
    body: bytes | None


def new_secret(source: random.Random) -> str:
    """Make a secret to sign with."""
    return _SECRET + base64.b64encode(source.randbytes(24)).decode()


def check_secrets(value: str) -> None:
    """Raise BadInput unless `value` is a secret to sign with, or several with spaces between them."""
    if not value.split():
        raise BadInput("there is no secret")
    for secret in value.split():
        _key(secret)


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return a signature in the form of the header, `v1,BASE64`. Raises BadInput for a bad secret."""
    message = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(_key(secret), message, hashlib.sha256)).decode()}"


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput("the secret is not base64") from error
    if not secret.startswith(_SECRET) or len(key) not in _KEY_BYTES:
        raise BadInput(f"a secret that signs is {_SECRET} and the base64 of 24 to 64 bytes")
    return key


def outgoing(
    target: Mapping[str, Any],
    destination: ApiDestinationRecord,
    connection: ConnectionRecord,
    event: Mapping[str, Any],
    text: str,
    *,
    now: float,
) -> Outgoing:
    """Return the request that brings `text`, made of `event`, to a destination at the epoch second `now`.

    What both the connection and the target's HttpParameters give is the connection's. Raises BadInput if it can't be
    made.
    """
    parameters = target.get("HttpParameters") or {}
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": f"Homeport/{__version__}"}
    _set(headers, {name: _dynamic(value, event) for name, value in (parameters.get("HeaderParameters") or {}).items()})
    _set(headers, _of(connection, "header"))
    query = {name: _dynamic(value, event) for name, value in (parameters.get("QueryStringParameters") or {}).items()}
    url = _url(destination.endpoint, [_dynamic(value, event) for value in parameters.get("PathParameterValues") or ()])
    body = None if destination.method in _WITHOUT_BODY else _body(text, _of(connection, "body"))
    _set(headers, _proof(connection, str(event.get("id", "")), int(now), body or b""))
    return Outgoing(destination.method, url.update_query({**query, **_of(connection, "query")}), headers, body)


def _of(connection: ConnectionRecord, place: str) -> dict[str, str]:
    return {each.key: each.value for each in connection.parameters if each.place == place}


def _set(headers: dict[str, str], more: Mapping[str, str]) -> None:
    """Set headers, whatever their case; what would end a header is left out."""
    for name, value in more.items():
        for known in [known for known in headers if known.lower() == name.lower()]:
            del headers[known]
        headers[name] = "".join(letter if letter.isprintable() else " " for letter in value).strip()


def _dynamic(value: str, event: Mapping[str, Any]) -> str:
    """Return a parameter's value, or what it leads to in the event if it is a path."""
    if not value.startswith("$."):
        return value
    found = follow(value, event)
    if found is Missing:
        return ""
    return found if isinstance(found, str) else msgspec.json.encode(found).decode()


def _url(endpoint: str, values: list[str]) -> URL:
    """Fill in path parameters: each `*` by the next value."""
    first, *others = endpoint.split("*")
    if len(values) < len(others):
        raise BadInput(f"the endpoint has {len(others)} *, and HttpParameters only {len(values)} PathParameterValues")
    filled = first + "".join(quote(value, safe="") + part for value, part in zip(values, others, strict=False))
    return URL(filled, encoded=True)


def _body(text: str, members: Mapping[str, str]) -> bytes:
    if not members:
        return text.encode()
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError:
        document = None
    if not isinstance(document, dict):
        raise BadInput("the connection has BodyParameters, but what is sent is no JSON object")
    return msgspec.json.encode({**document, **members})


def _proof(connection: ConnectionRecord, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers that tell an event's repetitions by, and prove who sends it."""
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if connection.authorization == "BASIC":
        pair = base64.b64encode(f"{connection.user}:{connection.secret}".encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    elif connection.user.lower() == SIGNATURE:
        signatures = [signature(secret, message_id, timestamp, body) for secret in connection.secret.split()]
        headers[SIGNATURE] = " ".join(signatures)
    else:
        headers[connection.user] = connection.secret
    return headers
