"""REST-JSON, AWS's third wire form: an operation is a method and a path, its input is spread over path, query and body.

`RestRoutes` finds the operation of a request; `RestJsonCodec` is its codec. Rules: "AWS restJson1 protocol" of Smithy.
Numbers and booleans in a path, query or header are typed by their shape; what can't be is left for validation.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from email.utils import formatdate, parsedate_to_datetime
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from controlplane.api.codec import Document, JsonCodec, RequestParts, scalar
from controlplane.api.errors import ApiError
from controlplane.api.model import Operation, Service, Shape
from homeport.clock import iso_time

__all__ = ["RestJsonCodec", "RestRoutes"]

_LABEL: Final = re.compile(r"\{([^}+]+)(\+?)\}")


class _Route(NamedTuple):
    method: str
    #: With one group for each of `labels`.
    pattern: re.Pattern[str]
    labels: tuple[str, ...]
    #: `name=value` pairs, or names alone, that the query must have.
    query: frozenset[str]
    operation: str
    #: Of several that match, the one with the most literal text is meant.
    literal: int


class RestRoutes:
    """The operations of one service by method and path."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._routes = sorted(map(_route, operations), key=lambda route: (-len(route.query), -route.literal))

    def find(self, method: str, path: str, query: str = "") -> tuple[str, dict[str, str]] | None:
        """Return the operation's name and its path labels, decoded. `path` and `query` as they came, still encoded."""
        given = frozenset(query.split("&")) if query else frozenset()
        for route in self._routes:
            if route.method == method and route.query <= given and (match := route.pattern.fullmatch(path)):
                return route.operation, dict(zip(route.labels, map(unquote, match.groups()), strict=True))
        return None


def _route(operation: Operation) -> _Route:
    path, _, query = operation.path.partition("?")
    pattern, end = "", 0
    for label in _LABEL.finditer(path):
        wanted = ".+" if label[2] else "[^/]+"
        pattern += f"{re.escape(path[end : label.start()])}({wanted})"
        end = label.end()
    pattern += re.escape(path[end:].rstrip("/")) + "/?"
    return _Route(
        operation.method,
        re.compile(pattern),
        tuple(label[1] for label in _LABEL.finditer(path)),
        frozenset(query.split("&")) if query else frozenset(),
        operation.name,
        len(_LABEL.sub("", path)),
    )


class RestJsonCodec(JsonCodec):
    """REST-JSON of one service. In an error the header X-Amzn-ErrorType has its name."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.content_type = "application/json"
        self._message_members = service.message_members

    def parse(self, body: bytes, shape: Shape | None, parts: RequestParts | None = None) -> object:
        """See Codec."""
        if shape is None:
            return {}
        payload = shape.members.get(shape.payload)
        if payload is not None and payload.type in ("blob", "string"):
            document: dict[str, Any] = {shape.payload: _raw(payload, body)} if body else {}
        else:
            parsed = super().parse(body, shape)
            if not isinstance(parsed, dict):
                raise ApiError("The request body must be a JSON object.", code="SerializationException")
            document = {shape.payload: _named(payload, parsed)} if payload else _named(shape, parsed)
            # What belongs elsewhere isn't taken from the body.
            document = {name: value for name, value in document.items() if name not in shape.locations}
        if parts is not None:
            document.update(_located(shape, parts))
        return document

    def render(self, operation: Operation | None, document: Document, request_id: str) -> bytes:
        """See Codec."""
        shape = None if operation is None else operation.output
        if shape is None:
            return b""
        payload = shape.members.get(shape.payload)
        if payload is None:
            inside = {name: value for name, value in document.items() if name not in shape.locations}
            return super().render(operation, _wired(shape, inside), request_id)
        value = document.get(shape.payload)
        if payload.type in ("blob", "string"):
            return value if isinstance(value, bytes) else str(value or "").encode()
        return super().render(operation, _wired(payload, value or {}), request_id)

    def head(self, operation: Operation | None, document: Document) -> tuple[int, dict[str, str]]:
        """See Codec."""
        if operation is None:
            return 200, {}
        status, headers = operation.status, {}
        shape = operation.output
        for member, location in () if shape is None else shape.locations.items():
            assert shape is not None
            value = document.get(member)
            if value is None:
                continue
            name = shape.wire_names.get(member, member)
            if location == "statusCode":
                status = value
            elif location == "headers":
                headers.update({name + key: str(text) for key, text in value.items()})
            else:
                headers[name] = _header_text(shape.members[member], value)
        return status, headers

    def render_error(self, error: ApiError, *, code: str, status: int, request_id: str) -> bytes:
        """See Codec. The text is in the member that the error's shape has for it."""
        member = self._message_members.get(code)
        if member is None:
            return super().render_error(error, code=code, status=status, request_id=request_id)
        return super().render(None, {"__type": code, member: error.message, **error.members}, request_id)

    def error_headers(self, code: str) -> dict[str, str]:
        """See Codec."""
        return {"x-amzn-ErrorType": code}


# ---------------------------------------------------------------- reading


def _located(shape: Shape, parts: RequestParts) -> Document:
    """Return the members that are in path, query and headers."""
    found: Document = {}
    taken: set[str] = set()
    rest: dict[str, Shape] = {}
    for member, location in shape.locations.items():
        kind, name = shape.members[member], shape.wire_names.get(member, member)
        if location == "uri":
            if name in parts.labels:
                found[member] = _typed(kind, parts.labels[name])
        elif location == "querystring":
            if kind.type == "map":
                rest[member] = kind
                continue
            taken.add(name)
            if values := [value for given, value in parts.query if given == name]:
                found[member] = _values(kind, values)
        elif location == "headers":
            found[member] = _prefixed(parts, name)
        elif name in parts.headers:
            found[member] = _values(kind, parts.headers.getall(name), header=True)
    for member, kind in rest.items():
        # A map in the query has every parameter that no other member has taken.
        found[member] = _query_map(kind, [(name, value) for name, value in parts.query if name not in taken])
    return found


def _prefixed(parts: RequestParts, prefix: str) -> dict[str, str]:
    return {
        name[len(prefix) :]: value for name, value in parts.headers.items() if name.lower().startswith(prefix.lower())
    }


def _query_map(kind: Shape, pairs: list[tuple[str, str]]) -> Document:
    found: Document = {}
    for name, value in pairs:
        if kind.element is not None and kind.element.type == "list":
            found.setdefault(name, []).append(value)
        else:
            found.setdefault(name, value)
    return found


def _values(kind: Shape, texts: list[str], *, header: bool = False) -> object:
    """A list has every value (in headers also those between commas), anything else the first."""
    if kind.type != "list":
        return _typed(kind, texts[0])
    assert kind.element is not None
    if header:
        texts = [part.strip() for text in texts for part in text.split(",")]
    return [_typed(kind.element, text) for text in texts]


def _typed(kind: Shape, text: str) -> object:
    if kind.type != "timestamp":
        return scalar(kind, text)
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        return text  # ISO 8601, or what validation refuses


def _raw(kind: Shape, body: bytes) -> str:
    """A body that is one string or blob; a blob as validation takes it, in base64."""
    return base64.b64encode(body).decode() if kind.type == "blob" else body.decode("utf-8", "replace")


def _named(shape: Shape, value: Any) -> Any:
    """Give the members of a JSON value the model's names, at every depth."""
    if shape.type == "structure" and isinstance(value, dict) and not shape.document:
        own_names = {wire: member for member, wire in shape.wire_names.items() if member not in shape.locations}
        named: Document = {}
        for name, item in value.items():
            member = own_names.get(str(name), str(name))
            known = shape.members.get(member)
            named[member] = item if known is None else _named(known, item)
        return named
    return _inside(shape, value, _named)


# ---------------------------------------------------------------- writing


def _wired(shape: Shape, value: Any) -> Any:
    """Give the members of an answer the names on the wire; bytes become base64, times what their format says."""
    if shape.type == "structure" and isinstance(value, Mapping) and not shape.document:
        return {
            shape.wire_names.get(name, name): _wired(shape.members[name], item)
            for name, item in value.items()
            if name in shape.members
        }
    if shape.type == "blob" and isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if shape.type == "timestamp" and shape.timestamp_format not in ("", "unixTimestamp"):
        return _time_text(value, shape.timestamp_format)
    return _inside(shape, value, _wired)


def _inside(shape: Shape, value: Any, convert: Any) -> Any:
    """Convert the elements of a list or map."""
    element = shape.element
    if element is None:
        return value
    if isinstance(value, Mapping):
        return {key: convert(element, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [convert(element, item) for item in value]
    return value


def _header_text(kind: Shape, value: Any) -> str:
    if kind.type == "timestamp":
        return _time_text(value, kind.timestamp_format or "rfc822")
    if kind.type == "boolean":
        return "true" if value else "false"
    if kind.type == "list":
        return ", ".join(map(str, value))
    return str(value)


def _time_text(epoch_s: float, form: str) -> str:
    if form == "rfc822":
        return formatdate(epoch_s, usegmt=True)
    if form == "iso8601":
        return iso_time(epoch_s, millis=True)
    return str(epoch_s)
