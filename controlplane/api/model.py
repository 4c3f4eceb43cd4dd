"""What the AWS service models say, in terms of our own. The only module that knows botocore.

botocore ships AWS's own machine-readable models. They are read once at start, reduced to what the front door needs
(operations, shapes with their constraints, error shapes) and dropped, documentation and all.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal

from botocore.loaders import Loader

__all__ = ["Location", "Operation", "Protocol", "Service", "Shape", "load_service"]

Protocol = Literal["json", "query", "rest-json"]

#: Where a member of a REST request or answer is, if not in the body. "headers": all headers with the name's beginning.
Location = Literal["uri", "querystring", "header", "headers", "statusCode"]


@dataclass(slots=True, eq=False)
class Shape:
    """One shape of a model. Filled while loading (shapes may refer to each other), never changed afterwards."""

    name: str
    #: structure, list, map, string, integer, long, double, float, boolean, timestamp or blob.
    type: str
    enum: tuple[str, ...] = ()
    #: As the model spells it, and compiled for `fullmatch`.
    pattern_text: str = ""
    pattern: re.Pattern[str] | None = None
    #: Of a number its value; of anything else its length or size.
    minimum: float | None = None
    maximum: float | None = None
    required: tuple[str, ...] = ()
    members: dict[str, "Shape"] = field(default_factory=dict)
    #: Of a list its elements, of a map its values.
    element: "Shape | None" = None
    #: Of a map.
    key: "Shape | None" = None
    #: Exactly one member is set.
    union: bool = False
    #: Any JSON is allowed.
    document: bool = False
    #: Of a structure: the members that go under another name than their own, and those that aren't in the body (REST).
    wire_names: dict[str, str] = field(default_factory=dict)
    locations: dict[str, Location] = field(default_factory=dict)
    #: Of a structure in REST: the member that is the whole body; "" if the members share it.
    payload: str = ""
    #: Of a timestamp: "iso8601", "rfc822", "unixTimestamp", or "" for what its place in the message implies.
    timestamp_format: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. A shape is None where the operation takes or returns nothing."""

    name: str
    input: Shape | None
    output: Shape | None
    #: The name that wraps the output in the query protocol's XML.
    result_wrapper: str = ""
    #: Of REST: the HTTP method, the path with its `{Label}`s, and the status of a success.
    method: str = "POST"
    path: str = "/"
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service that the front door speaks.

    `operations` None: there is no model; its handlers get the JSON object as it came.
    """

    name: str
    #: What comes before the dot in X-Amz-Target; "" for the query protocol and REST.
    target_prefix: str
    signing_name: str
    #: The full name of the service, for people.
    title: str = ""
    protocol: Protocol = "json"
    json_version: str = "1.1"
    xml_namespace: str = ""
    operations: Mapping[str, Operation] | None = None
    #: Error name -> (name on the wire, HTTP status).
    errors: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    #: Errors whose text is in another member than `message` -> that member.
    message_members: Mapping[str, str] = field(default_factory=dict)
    #: How the service names a value that breaks a constraint of its model.
    validation_error: str = "ValidationException"


#: These report broken constraints under a name of their own, unlike nearly all other services.
_VALIDATION_ERRORS: Final = {"ecs": "InvalidParameterException", "logs": "InvalidParameterException"}

#: Unicode classes that Java's patterns have and Python's lack. `\w` holds more than the letters, which is as well: in
#: AWS's models the three always stand together.
_UNICODE_CLASSES: Final = {
    r"\p{L}": r"\w",
    r"\p{N}": r"\d",
    r"\p{Z}": " \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
}


@cache
def load_service(name: str) -> Service:
    """Read the newest model of a service, e.g. "ecs". Raises botocore's UnknownServiceError if there is none."""
    model: dict[str, Any] = Loader().load_service_model(name, "service-2")
    metadata = model["metadata"]
    shapes = _Shapes(model["shapes"])
    # A service that can speak several protocols is spoken to by botocore in the first one it prefers; JSON is among all
    # that aren't of the other two.
    spoken = metadata["protocol"]
    protocol: Protocol = spoken if spoken in ("query", "rest-json") else "json"
    return Service(
        name=name,
        target_prefix=metadata.get("targetPrefix", ""),
        signing_name=metadata.get("signingName", metadata["endpointPrefix"]),
        title=metadata["serviceFullName"],
        protocol=protocol,
        json_version=metadata.get("jsonVersion", ""),
        xml_namespace=metadata.get("xmlNamespace", ""),
        operations={
            operation: _operation(operation, document, shapes)
            for operation, document in sorted(model["operations"].items())
        },
        errors={
            shape_name: _error(shape_name, document)
            for shape_name, document in model["shapes"].items()
            if document.get("exception")
        },
        message_members={
            shape_name: member
            for shape_name, document in model["shapes"].items()
            if document.get("exception")
            for member in document.get("members", ())
            if member == "Message"
        },
        validation_error=_VALIDATION_ERRORS.get(name, "ValidationException"),
    )


def _operation(name: str, document: dict[str, Any], shapes: "_Shapes") -> Operation:
    http = document.get("http", {})
    return Operation(
        name,
        shapes.optional(document.get("input")),
        shapes.optional(document.get("output")),
        document.get("output", {}).get("resultWrapper", ""),
        method=http.get("method", "POST"),
        path=http.get("requestUri", "/"),
        status=http.get("responseCode", 200),
    )


def _error(name: str, document: dict[str, Any]) -> tuple[str, int]:
    error = document.get("error", {})
    default_status = 500 if document.get("fault") else 400
    return error.get("code", name), error.get("httpStatusCode", default_status)


class _Shapes:
    """Turns the shapes of a model into ours, each once."""

    def __init__(self, documents: dict[str, Any]) -> None:
        self._documents = documents
        self._shapes: dict[str, Shape] = {}

    def optional(self, reference: dict[str, Any] | None) -> Shape | None:
        return None if reference is None else self.get(reference["shape"])

    def get(self, name: str) -> Shape:
        if name in self._shapes:
            return self._shapes[name]
        document = self._documents[name]
        pattern = document.get("pattern", "")
        shape = self._shapes[name] = Shape(
            name=name,
            type=document["type"],
            enum=tuple(document.get("enum", ())),
            pattern_text=pattern,
            pattern=_compile(pattern) if pattern else None,
            minimum=document.get("min"),
            maximum=document.get("max"),
            required=tuple(document.get("required", ())),
            union=document.get("union", False),
            document=document.get("document", False),
            payload=document.get("payload", ""),
            timestamp_format=document.get("timestampFormat", ""),
        )
        for member, reference in document.get("members", {}).items():
            shape.members[member] = self.get(reference["shape"])
            if reference.get("locationName", member) != member:
                shape.wire_names[member] = reference["locationName"]
            if "location" in reference:
                shape.locations[member] = reference["location"]
        if "member" in document:
            shape.element = self.get(document["member"]["shape"])
        if "value" in document:
            shape.element = self.get(document["value"]["shape"])
            shape.key = self.get(document["key"]["shape"])
        return shape


def _compile(pattern: str) -> re.Pattern[str] | None:
    """Compile a Java pattern; None if Python has no like of it (it is then not checked)."""
    for java, python in _UNICODE_CLASSES.items():
        pattern = pattern.replace(java, python)
    try:
        return re.compile(pattern)
    except re.error:
        return None
