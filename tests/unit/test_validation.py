"""Checking documents against shapes: types, constraints, what is dropped."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.errors import ApiError
from controlplane.api.model import Shape, load_service
from controlplane.api.validation import check

STRING = Shape("String", "string")
EXAMPLE = Shape(
    "Example",
    "structure",
    required=("name",),
    members={
        "name": Shape("Name", "string", minimum=1, maximum=5, pattern_text="[a-z]*", pattern=re.compile("[a-z]*")),
        "kind": Shape("Kind", "string", enum=("A", "B")),
        "count": Shape("Count", "integer", minimum=0, maximum=10),
        "size": Shape("Size", "long"),
        "ratio": Shape("Ratio", "double", minimum=0, maximum=1),
        "on": Shape("On", "boolean"),
        "at": Shape("At", "timestamp"),
        "data": Shape("Data", "blob", maximum=100),
        "labels": Shape("Labels", "map", key=STRING, element=STRING, maximum=2),
        "words": Shape("Words", "list", element=STRING, minimum=1, maximum=2),
        "either": Shape("Either", "structure", union=True, members={"left": STRING, "right": STRING}),
        "anything": Shape("Anything", "structure", document=True),
    },
)


def checked(**members: Any) -> dict[str, Any]:
    return check(EXAMPLE, {"name": "a", **members}, validation_error="ValidationException")


def refusal(document: object) -> tuple[str, str]:
    with pytest.raises(ApiError) as caught:
        check(EXAMPLE, document, validation_error="ValidationException")
    return caught.value.code, caught.value.message


def test_a_fitting_document_comes_back_as_it_is() -> None:
    document = {
        "name": "abc",
        "kind": "A",
        "count": 10,
        "size": 2**62,
        "ratio": 0.5,
        "on": False,
        "labels": {"a": ""},
        "words": ["x", ""],
        "either": {"left": ""},
        "anything": {"deep": [None, {"x": 1}]},
    }
    assert check(EXAMPLE, document, validation_error="x") == document


def test_unknown_and_null_members_are_dropped() -> None:
    assert checked(nonsense=1, kind=None, either={"left": "x", "right": None, "up": 1}) == {
        "name": "a",
        "either": {"left": "x"},
    }


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (1700000000, 1700000000.0),
        (1.5, 1.5),
        ("2023-11-14T22:13:20Z", 1700000000.0),
        ("2023-11-14T22:13:20", 1700000000.0),
    ],
)
def test_timestamps_are_read_as_numbers_or_text(given: object, read: float) -> None:
    assert checked(at=given)["at"] == read


def test_a_whole_float_is_an_integer_and_a_blob_is_bytes() -> None:
    assert checked(count=3.0, data="AAE=") == {"name": "a", "count": 3, "data": b"\x00\x01"}


@pytest.mark.parametrize(
    ("member", "value", "kind", "wanted"),
    [
        ("name", 1, "NUMBER_VALUE", "a String"),
        ("name", [], "ARRAY_VALUE", "a String"),
        ("name", {}, "OBJECT_VALUE", "a String"),
        ("name", True, "TRUE_VALUE", "a String"),
        ("count", "1", "STRING_VALUE", "an Integer"),
        ("count", False, "FALSE_VALUE", "an Integer"),
        ("count", 1.5, "NUMBER_VALUE", "an Integer"),
        ("ratio", "1", "STRING_VALUE", "a Double"),
        ("ratio", float("inf"), "NUMBER_VALUE", "a Double"),
        ("on", 1, "NUMBER_VALUE", "a Boolean"),
        ("at", "soon", "STRING_VALUE", "a Timestamp"),
        ("at", 1e300, "NUMBER_VALUE", "a Timestamp"),
        ("at", True, "TRUE_VALUE", "a Timestamp"),
        ("data", "%", "STRING_VALUE", "a Blob"),
        ("data", 1, "NUMBER_VALUE", "a Blob"),
        ("labels", [], "ARRAY_VALUE", "a Map"),
        ("words", "x", "STRING_VALUE", "a List"),
        ("either", "x", "STRING_VALUE", "a Structure"),
    ],
)
def test_a_wrong_type_is_a_serialization_exception(member: str, value: object, kind: str, wanted: str) -> None:
    assert refusal({"name": "a", member: value}) == (
        "SerializationException",
        f"{kind} at '{member}' can not be converted to {wanted}",
    )


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 1e300])
def test_an_integer_has_32_bits(value: float) -> None:
    assert refusal({"name": "a", "count": value})[0] == "SerializationException"


@pytest.mark.parametrize("document", [None, [], "x", 1])
def test_a_request_is_an_object(document: object) -> None:
    assert refusal(document)[0] == "SerializationException"


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({}, "null at 'name' | Member must not be null"),
        ({"name": ""}, "'' at 'name' | length greater than or equal to 1"),
        ({"name": "abcdef"}, "'abcdef' at 'name' | length less than or equal to 5"),
        ({"name": "A"}, "'A' at 'name' | Member must satisfy regular expression pattern: [a-z]*"),
        ({"name": "a", "kind": "C"}, "'C' at 'kind' | Member must satisfy enum value set: [A, B]"),
        ({"name": "a", "count": -1}, "'-1' at 'count' | value greater than or equal to 0"),
        ({"name": "a", "count": 11}, "'11' at 'count' | value less than or equal to 10"),
        ({"name": "a", "ratio": 1.5}, "'1.5' at 'ratio' | value less than or equal to 1"),
        ({"name": "a", "words": []}, "'0 elements' at 'words' | length greater than or equal to 1"),
        ({"name": "a", "words": ["x", None]}, "null at 'words.2.member' | Member must not be null"),
        ({"name": "a", "labels": {"k": None}}, "null at 'labels.k.value' | Member must not be null"),
        ({"name": "a", "labels": dict.fromkeys("abc", "")}, "'3 entries' at 'labels' | length less than or equal to 2"),
        ({"name": "a", "either": {}}, "'...' at 'either' | Exactly one of [left, right] must be set"),
    ],
)
def test_a_broken_constraint_is_named_with_its_limit(document: object, told: str) -> None:
    what, constraint = told.split(" | ")
    if constraint.startswith(("length", "value")):
        constraint = f"Member must have {constraint}"
    sentence = f"1 validation error detected: Value {what} failed to satisfy constraint: {constraint}"
    assert refusal(document) == ("ValidationException", sentence)


def test_many_problems_are_counted_and_long_values_cut() -> None:
    _, message = refusal({"name": "x" * 1000, "words": [None] * 20})
    assert message.startswith("22 validation errors detected: ")
    assert message.endswith("; and 12 more")
    assert "'" + "x" * 200 + "...'" in message


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(EXAMPLE.members)), inner),
)


@given(ANY_JSON)
def test_any_json_is_taken_or_refused(document: object) -> None:
    try:
        outcome = check(EXAMPLE, document, validation_error="ValidationException").keys() <= EXAMPLE.members.keys()
    except ApiError as error:
        outcome = error.code in ("SerializationException", "ValidationException")
    assert outcome


def test_every_pattern_of_the_models_can_be_checked() -> None:
    """A pattern that Python can't compile would be let pass."""
    seen: dict[str, Shape] = {}

    def visit(shape: Shape | None) -> None:
        if shape is None or shape.name in seen:
            return
        seen[shape.name] = shape
        for member in (*shape.members.values(), shape.element, shape.key):
            visit(member)

    for service in ("ecs", "sts"):
        for operation in (load_service(service).operations or {}).values():
            visit(operation.input)
    for name in ("CreateActivation", "DescribeActivations", "DeleteActivation"):
        visit((load_service("ssm").operations or {})[name].input)
    patterns = [shape for shape in seen.values() if shape.pattern_text]
    assert patterns
    assert [shape.name for shape in patterns if shape.pattern is None] == []
