"""REST-JSON: routes, and input and output spread over path, query, headers and body."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from controlplane.api.codec import RequestParts
from controlplane.api.errors import ApiError
from controlplane.api.model import Operation, Service, Shape, load_service
from controlplane.api.rest import RestJsonCodec, RestRoutes
from controlplane.api.wire import codec_of

#: Another test may have the machine meanwhile.
PATIENT = settings(deadline=None)

STRING = Shape("String", "string")
NUMBER = Shape("Number", "integer")
INNER = Shape("Inner", "structure", members={"Long": STRING, "At": Shape("At", "timestamp")}, wire_names={"Long": "l"})
INPUT = Shape(
    "Input",
    "structure",
    members={
        "Name": STRING,
        "Keys": Shape("Keys", "list", element=STRING),
        "Count": NUMBER,
        "On": Shape("On", "boolean"),
        "Since": Shape("Since", "timestamp"),
        "Meta": Shape("Meta", "map", key=STRING, element=STRING),
        "Trace": STRING,
        "Rest": Shape("Rest", "map", key=STRING, element=STRING),
        "Inner": INNER,
        "Many": Shape("Many", "list", element=INNER),
    },
    locations={
        "Name": "uri",
        "Keys": "querystring",
        "Count": "querystring",
        "On": "querystring",
        "Since": "querystring",
        "Rest": "querystring",
        "Trace": "header",
        "Meta": "headers",
    },
    wire_names={"Keys": "key", "Trace": "X-Trace", "Meta": "X-Meta-", "Many": "many"},
)
CODEC = RestJsonCodec(
    Service(name="s", target_prefix="", signing_name="s", message_members={"BadException": "Message"})
)


def parts(query: list[tuple[str, str]] | None = None, **labels: str) -> RequestParts:
    headers = CIMultiDict({"x-trace": "t", "x-meta-colour": "blue", "Host": "h"})
    return RequestParts(labels, query or [], headers)


@pytest.mark.parametrize(
    ("method", "path", "query", "found"),
    [
        ("GET", "/things", "", ("ListThings", {})),
        ("GET", "/things/", "", ("ListThings", {})),
        ("GET", "/things/a%2Fb%20c", "", ("GetThing", {"Name": "a/b c"})),
        ("DELETE", "/things/a", "clientToken=x", ("DeleteThing", {"Name": "a"})),
        ("GET", "/things/a/parts/1", "", ("GetPart", {"Name": "a", "Part": "1"})),
        ("GET", "/things/latest", "", ("GetLatest", {})),
        ("GET", "/files/a/b/c", "", ("GetFile", {"Path": "a/b/c"})),
        ("POST", "/things/a", "publish", ("Publish", {"Name": "a"})),
        ("POST", "/things/a", "", ("PutThing", {"Name": "a"})),
        ("PATCH", "/things/a", "", None),
        ("GET", "/things/a/parts", "", None),
        ("GET", "/", "", None),
        ("GET", "/things//", "", None),
    ],
)
def test_method_path_and_query_find_the_operation(method: str, path: str, query: str, found: Any) -> None:
    table = {
        "ListThings": ("GET", "/things"),
        "GetThing": ("GET", "/things/{Name}"),
        "GetLatest": ("GET", "/things/latest"),
        "DeleteThing": ("DELETE", "/things/{Name}"),
        "GetPart": ("GET", "/things/{Name}/parts/{Part}"),
        "GetFile": ("GET", "/files/{Path+}"),
        "PutThing": ("POST", "/things/{Name}"),
        "Publish": ("POST", "/things/{Name}?publish"),
    }
    routes = RestRoutes(Operation(name, None, None, method=how, path=where) for name, (how, where) in table.items())
    assert routes.find(method, path, query) == found


@pytest.mark.parametrize("service", ["scheduler", "batch", "lambda", "efs", "apigatewayv2"])
def test_every_operation_of_a_model_has_a_path_that_finds_it(service: str) -> None:
    operations = (load_service(service).operations or {}).values()
    routes = RestRoutes(operations)
    for operation in operations:
        path, _, query = operation.path.partition("?")
        filled = path.replace("{", "x").replace("+}", "").replace("}", "")
        found = routes.find(operation.method, filled, query)
        assert found is not None, operation.path
        assert found[0] == operation.name


def test_input_comes_from_everywhere() -> None:
    query = [("key", "a"), ("key", "b"), ("Count", "3"), ("On", "true"), ("Since", "2026-01-01T00:00:00Z"), ("z", "1")]
    body = b'{"Inner": {"l": "x", "At": 1.5}, "many": [{"l": "y"}], "Name": "not from here"}'
    assert CODEC.parse(body, INPUT, parts(query, Name="n")) == {
        "Name": "n",
        "Keys": ["a", "b"],
        "Count": 3,
        "On": True,
        "Since": "2026-01-01T00:00:00Z",
        "Rest": {"z": "1"},
        "Trace": "t",
        "Meta": {"colour": "blue"},
        "Inner": {"Long": "x", "At": 1.5},
        "Many": [{"Long": "y"}],
    }


def test_what_belongs_elsewhere_is_not_taken_from_the_body() -> None:
    document = CODEC.parse(b'{"Name": "n", "Count": 5, "Trace": "x", "Inner": {}}', INPUT, parts(Name="m"))
    assert document == {"Name": "m", "Inner": {}, "Rest": {}, "Trace": "t", "Meta": {"colour": "blue"}}


def test_a_body_that_is_one_member() -> None:
    shape = Shape("I", "structure", members={"Inner": INNER}, payload="Inner")
    assert CODEC.parse(b'{"l": "x"}', shape, parts()) == {"Inner": {"Long": "x"}}
    blob = Shape("B", "structure", members={"Data": Shape("Data", "blob")}, payload="Data")
    assert CODEC.parse(b"\x00", blob, parts()) == {"Data": "AA=="}


@pytest.mark.parametrize("body", [b"[]", b"3", b"{", b"\xff"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        CODEC.parse(body, INPUT, parts())
    assert caught.value.code == "SerializationException"


def test_output_goes_everywhere() -> None:
    stamp = Shape("Stamp", "timestamp", timestamp_format="iso8601")
    shape = Shape(
        "Output",
        "structure",
        members={"Inner": INNER, "Status": NUMBER, "Tag": STRING, "When": Shape("W", "timestamp"), "Stamp": stamp},
        locations={"Status": "statusCode", "Tag": "header", "When": "header"},
        wire_names={"Tag": "ETag", "When": "Last-Modified"},
    )
    operation = Operation("Do", None, shape, status=201)
    document: dict[str, Any] = {"Inner": {"Long": "x", "At": 1.5}, "Tag": "t", "When": 0.0, "Stamp": 0.5}
    body = CODEC.render(operation, document, "id")
    assert body == b'{"Inner":{"l":"x","At":1.5},"Stamp":"1970-01-01T00:00:00.500Z"}'
    headers = {"ETag": "t", "Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT"}
    assert CODEC.head(operation, document) == (201, headers)
    assert CODEC.head(operation, {"Status": 202})[0] == 202


def test_an_error_has_its_name_in_a_header_and_its_text_where_the_model_has_it() -> None:
    body = CODEC.render_error(ApiError("no"), code="BadException", status=400, request_id="id")
    assert body == b'{"__type":"BadException","Message":"no"}'
    body = CODEC.render_error(ApiError("no"), code="Other", status=400, request_id="id")
    assert body == b'{"__type":"Other","message":"no"}'
    assert CODEC.error_headers("Other") == {"x-amzn-ErrorType": "Other"}


def test_the_scheduler_speaks_rest() -> None:
    service = load_service("scheduler")
    assert isinstance(codec_of(service), RestJsonCodec)
    assert service.message_members["ConflictException"] == "Message"
    assert service.errors["ConflictException"] == ("ConflictException", 409)


@PATIENT
@given(st.text(), st.lists(st.tuples(st.text(), st.text()), max_size=4), st.binary(max_size=20))
def test_whatever_comes_is_read_or_refused(label: str, query: list[tuple[str, str]], body: bytes) -> None:
    try:
        document = CODEC.parse(body, INPUT, parts([*query, ("Count", label), ("Since", label)], Name=label))
    except ApiError as error:
        outcome = error.code == "SerializationException"
    else:
        outcome = isinstance(document, dict) and document["Name"] == label
    assert outcome
