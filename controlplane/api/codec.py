"""Wire forms of AWS services: JSON 1.0/1.1, and the older query protocol (a form in, XML out) that STS speaks.

The third, REST-JSON, is in `rest`; `wire` tells which of them a service has.

A codec turns a body into a plain document, and an answer or error into a body. What a document means is not its
business. Timestamps in answers are epoch seconds inside; JSON carries them as numbers, XML as ISO 8601.
"""

from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from controlplane.api.errors import ApiError
from controlplane.api.model import Operation, Shape
from homeport.clock import iso_time

__all__ = ["Codec", "JsonCodec", "QueryCodec", "RequestParts", "parse_form", "scalar"]

Document = dict[str, Any]

#: Fields of a form that are read; a query operation has a handful.
_MAX_FORM_FIELDS: Final = 1000


class RequestParts(NamedTuple):
    """Where a REST request has input besides its body."""

    #: The path's labels, decoded.
    labels: dict[str, str]
    #: The query's parameters, decoded, in order.
    query: list[tuple[str, str]]
    headers: CIMultiDict[str] | CIMultiDictProxy[str]


class Codec(Protocol):
    """One wire form of one service."""

    content_type: str

    def parse(self, body: bytes, shape: Shape | None, parts: RequestParts | None = None) -> object:
        """Return the request document. Raises ApiError (SerializationException) if the body can't be read."""
        ...

    def head(self, operation: Operation | None, document: Document) -> tuple[int, dict[str, str]]:
        """Return the status of an answer, and the headers that carry members of it."""
        ...

    def error_headers(self, code: str) -> dict[str, str]:
        """Return the headers of an error that the protocol wants."""
        ...

    def render(self, operation: Operation | None, document: Document, request_id: str) -> bytes:
        """Return the body of an answer."""
        ...

    def render_error(self, error: ApiError, *, code: str, status: int, request_id: str) -> bytes:
        """Return the body of an error."""
        ...


class _BodyCodec:
    """A form in which everything is in the body."""

    def head(self, operation: Operation | None, document: Document) -> tuple[int, dict[str, str]]:  # noqa: ARG002
        """See Codec."""
        return 200, {}

    def error_headers(self, code: str) -> dict[str, str]:  # noqa: ARG002
        """See Codec."""
        return {}


class JsonCodec(_BodyCodec):
    """AWS JSON."""

    def __init__(self, version: str = "1.1") -> None:
        self.content_type = f"application/x-amz-json-{version}"

    def parse(self, body: bytes, shape: Shape | None, parts: RequestParts | None = None) -> object:  # noqa: ARG002
        """See Codec. An empty body is an empty object."""
        if not body:
            return {}
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            text = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise ApiError(f"The request body is not valid JSON: {text}", code="SerializationException") from error

    def render(self, operation: Operation | None, document: Document, request_id: str) -> bytes:  # noqa: ARG002
        """See Codec."""
        return msgspec.json.encode(document)

    def render_error(self, error: ApiError, *, code: str, status: int, request_id: str) -> bytes:  # noqa: ARG002
        """See Codec."""
        return msgspec.json.encode({"__type": code, "message": error.message, **error.members})


class QueryCodec(_BodyCodec):
    """The AWS query protocol."""

    content_type = "text/xml"

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def parse(self, body: bytes, shape: Shape | None, parts: RequestParts | None = None) -> object:  # noqa: ARG002
        """See Codec."""
        form = parse_form(body)
        return {} if shape is None else _from_form(shape, form, "")

    def render(self, operation: Operation | None, document: Document, request_id: str) -> bytes:
        """See Codec."""
        assert operation is not None, "a query service always has a model"
        output = "" if operation.output is None else _members_xml(operation.output, document)
        wrapper = operation.result_wrapper or f"{operation.name}Result"
        return (
            f'<{operation.name}Response xmlns="{escape(self._namespace)}"><{wrapper}>{output}</{wrapper}>'
            f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation.name}Response>"
        ).encode()

    def render_error(self, error: ApiError, *, code: str, status: int, request_id: str) -> bytes:
        """See Codec."""
        sender = "Receiver" if status >= 500 else "Sender"
        return (
            f'<ErrorResponse xmlns="{escape(self._namespace)}"><Error><Type>{sender}</Type>'
            f"<Code>{escape(code)}</Code><Message>{_text(error.message)}</Message></Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        ).encode()


def parse_form(body: bytes) -> dict[str, str]:
    """Read a form; the first of repeated fields counts. Raises ApiError (MalformedQueryString) if it can't be read."""
    try:
        fields = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            max_num_fields=_MAX_FORM_FIELDS,
            errors="strict",
            strict_parsing=False,
        )
    except ValueError as error:  # UnicodeDecodeError is one
        raise ApiError(f"The request body is not a form: {error}", code="MalformedQueryString") from error
    form: dict[str, str] = {}
    for name, value in fields:
        form.setdefault(name, value)
    return form


def _from_form(shape: Shape, form: dict[str, str], prefix: str) -> object:
    """Build a value from fields named `A.B`, `A.member.1`, `A.entry.1.key`; scalars are typed by their shape."""
    if shape.type == "structure":
        return {
            name: _from_form(member, form, _join(prefix, name))
            for name, member in shape.members.items()
            if _present(form, _join(prefix, name))
        }
    if shape.type == "list":
        assert shape.element is not None
        return [_from_form(shape.element, form, item) for item in _numbered(form, f"{prefix}.member")]
    if shape.type == "map":
        assert shape.element is not None
        return {
            form.get(f"{item}.key", ""): _from_form(shape.element, form, f"{item}.value")
            for item in _numbered(form, f"{prefix}.entry")
        }
    return scalar(shape, form[prefix]) if prefix in form else None


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _present(form: dict[str, str], name: str) -> bool:
    return name in form or any(field.startswith(f"{name}.") for field in form)


def _numbered(form: dict[str, str], prefix: str) -> list[str]:
    found: list[str] = []
    while _present(form, item := f"{prefix}.{len(found) + 1}"):
        found.append(item)
    return found


def scalar(shape: Shape, text: str) -> object:
    """Type a text by its shape; what can't be typed is left a string, for validation to refuse."""
    try:
        if shape.type in ("integer", "long"):
            return int(text)
        if shape.type in ("double", "float"):
            return float(text)
    except ValueError:
        return text
    if shape.type == "boolean" and text in ("true", "false"):
        return text == "true"
    return text


def _members_xml(shape: Shape, document: Document) -> str:
    return "".join(
        f"<{name}>{_value_xml(member, document[name])}</{name}>"
        for name, member in shape.members.items()
        if name in document
    )


def _value_xml(shape: Shape, value: Any) -> str:
    if shape.type == "structure":
        return _members_xml(shape, value)
    if shape.type == "list":
        assert shape.element is not None
        return "".join(f"<member>{_value_xml(shape.element, item)}</member>" for item in value)
    if shape.type == "timestamp":
        return iso_time(value, millis=True)
    if shape.type == "boolean":
        return "true" if value else "false"
    return _text(str(value))


def _text(text: str) -> str:
    """Escape for XML, which can't carry control characters at all."""
    return escape("".join(character if character >= " " or character in "\t\n\r" else "?" for character in text))
