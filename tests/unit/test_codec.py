"""The query protocol's forms and XML, and which codec a service has."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.codec import JsonCodec, QueryCodec
from controlplane.api.errors import ApiError
from controlplane.api.model import Operation, Shape, load_service
from controlplane.api.services import load_services
from controlplane.api.wire import codec_of

STRING = Shape("String", "string")
ITEM = Shape("Item", "structure", members={"Name": STRING, "Size": Shape("Size", "integer")})
INPUT = Shape(
    "Input",
    "structure",
    members={
        "Name": STRING,
        "Count": Shape("Count", "integer"),
        "Ratio": Shape("Ratio", "double"),
        "On": Shape("On", "boolean"),
        "Items": Shape("Items", "list", element=ITEM),
        "Labels": Shape("Labels", "map", key=STRING, element=STRING),
        "At": Shape("At", "timestamp"),
    },
)
QUERY = QueryCodec("https://example/doc/")


def test_a_form_becomes_a_document() -> None:
    body = (
        b"Action=A&Name=a%20b%C3%A4&Count=3&Ratio=.5&On=true&Items.member.1.Name=x&Items.member.1.Size=1"
        b"&Items.member.2.Size=oops&Labels.entry.1.key=k&Labels.entry.1.value=v&Name=second"
    )
    assert QUERY.parse(body, INPUT) == {
        "Name": "a bä",
        "Count": 3,
        "Ratio": 0.5,
        "On": True,
        "Items": [{"Name": "x", "Size": 1}, {"Size": "oops"}],
        "Labels": {"k": "v"},
    }


def test_a_document_becomes_xml() -> None:
    document: dict[str, Any] = {
        "Name": "<a> & \x00",
        "On": False,
        "Items": [{"Name": "x"}, {"Size": 2}],
        "At": 1700000000.5,
    }
    operation = Operation("Do", None, INPUT, "DoResult")
    root = ET.fromstring(QUERY.render(operation, document, "id-1"))
    space = "{https://example/doc/}"
    result = root.find(f"{space}DoResult")
    assert root.tag == f"{space}DoResponse"
    assert result is not None
    assert result.findtext(f"{space}Name") == "<a> & ?"
    assert result.findtext(f"{space}On") == "false"
    assert result.findtext(f"{space}At") == "2023-11-14T22:13:20.500Z"
    assert [member[0].text for member in result.findall(f"{space}Items/{space}member")] == ["x", "2"]
    assert root.findtext(f"{space}ResponseMetadata/{space}RequestId") == "id-1"


@pytest.mark.parametrize(("status", "kind"), [(400, "Sender"), (500, "Receiver")])
def test_an_error_becomes_xml(status: int, kind: str) -> None:
    body = QUERY.render_error(ApiError("a < b"), code="Bad", status=status, request_id="id-1")
    root = ET.fromstring(body)
    space = "{https://example/doc/}"
    told = [root.findtext(f"{space}Error/{space}{name}") for name in ("Type", "Code", "Message")]
    assert told == [kind, "Bad", "a < b"]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_form_or_refused(body: bytes) -> None:
    try:
        outcome = isinstance(QUERY.parse(body, INPUT), dict)
    except ApiError as error:
        outcome = error.code == "MalformedQueryString"
    assert outcome


def test_each_service_has_the_form_its_model_says() -> None:
    assert codec_of(load_service("sts")).content_type == "text/xml"
    assert codec_of(load_service("ecs")).content_type == "application/x-amz-json-1.1"
    assert codec_of(load_service("sqs")).content_type == "application/x-amz-json-1.0"


def test_an_empty_json_body_is_an_empty_object() -> None:
    assert JsonCodec().parse(b"", None) == {}


def test_services_are_found_by_prefix_and_by_signing_name() -> None:
    services = load_services()
    prefix = services.by_target_prefix("AmazonEC2ContainerServiceV20141113")
    assert prefix is services.by_signing_name("ecs")
    assert prefix is not None
    assert prefix.errors["ServerException"] == ("ServerException", 500)
    assert prefix.errors["ClientException"] == ("ClientException", 400)
    assert services.by_target_prefix("") is None
    own = services.by_target_prefix("Homeport_20261101")
    assert own is not None
    assert own.operations is None
