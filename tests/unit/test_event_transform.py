"""What targets are given of an event: AWS's documented examples, and whatever is filled in, what comes out is JSON."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.events.transform import BadInput, Missing, check_input, follow, input_of

ARN = "arn:aws:events:eu-home-1:123456789012:rule/mine"
EVENT: dict[str, Any] = {
    "id": "7bf73129",
    "detail-type": "EC2 Instance State-change Notification",
    "time": "2015-11-11T21:29:54Z",
    "resources": ["arn:aws:ec2:us-east-1:123456789012:instance/i-abcd1111"],
    "detail": {
        "instance-id": "i-0123456789",
        "state": "RUNNING",
        "containers": [{"name": "web", "exitCode": 1}, {"name": 'a "b"'}],
        "a.b": 5,
    },
}


def made(template: str, **paths: str) -> str:
    target = {"Id": "t", "InputTransformer": {"InputPathsMap": paths, "InputTemplate": template}}
    check_input(target)
    return input_of(target, EVENT, rule_arn=ARN, ingested_at="2015-11-11T21:30:00Z")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", EVENT),
        ("$.detail.state", "RUNNING"),
        ("$.detail-type", "EC2 Instance State-change Notification"),
        ("$.resources[0]", EVENT["resources"][0]),
        ("$.detail.containers[1].name", 'a "b"'),
        ("$.detail.containers[*].name", ["web", 'a "b"']),
        ("$.detail.containers[*].exitCode", [1]),
        ("$.detail['a.b']", 5),
        ("$.detail.nothing", Missing),
        ("$.detail.containers[2]", Missing),
        ("$.detail.state.deeper", Missing),
        ("$.detail[0]", Missing),
        ("$.detail[*]", Missing),
    ],
)
def test_paths(path: str, value: Any) -> None:
    assert follow(path, EVENT) == value


@pytest.mark.parametrize("path", ["", "detail", "$detail", "$.", "$..a", "$.a[", "$.a[-1]", "$.a[?(@.b)]", "$.*"])
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(BadInput):
        follow(path, EVENT)


def test_a_target_is_given_the_event_a_constant_or_a_part() -> None:
    def given_to(**members: str) -> Any:
        return msgspec.json.decode(input_of({"Id": "t", **members}, EVENT, rule_arn=ARN, ingested_at=""))

    assert given_to() == EVENT
    assert given_to(Input='{"a": 1}') == {"a": 1}
    assert given_to(InputPath="$.detail.state") == "RUNNING"
    assert given_to(InputPath="$.nothing") is None


@pytest.mark.parametrize(
    ("template", "text"),
    [
        # As in EventBridge's guide.
        ('"instance <instance> is in <state>"', '"instance i-0123456789 is in RUNNING"'),
        (
            '{"instance" : <instance>, "state": "<state>", "status": "instance \\"<instance>\\" is in <state>"}',
            '{"instance" : "i-0123456789", "state": "RUNNING", "status": "instance \\"i-0123456789\\" is in RUNNING"}',
        ),
        ('"instance <instance>"\n"is in <state>"', '"instance i-0123456789"\n"is in RUNNING"'),
        ('{"all": <containers>}', '{"all": [{"name":"web","exitCode":1},{"name":"a \\"b\\""}]}'),
        ('"<containers>"', '"[{\\"name\\":\\"web\\",\\"exitCode\\":1},{\\"name\\":\\"a \\\\\\"b\\\\\\"\\"}]"'),
        ('{"code": <code>, "as text": "<code>"}', '{"code": 1, "as text": "1"}'),
        ('{"gone": <gone>, "as text": "<gone>"}', '{"gone": null, "as text": ""}'),
        ('["<aws.events.rule-name>", <aws.events.rule-arn>]', f'["mine", "{ARN}"]'),
        ("<aws.events.event.ingestion-time>", '"2015-11-11T21:30:00Z"'),
    ],
)
def test_templates(template: str, text: str) -> None:
    paths = {"instance": "$.detail.instance-id", "state": "$.detail.state", "containers": "$.detail.containers"}
    assert made(template, **paths, code="$.detail.containers[0].exitCode", gone="$.detail.gone") == text


def test_the_event_itself_in_a_template() -> None:
    assert msgspec.json.decode(made('{"e": <aws.events.event.json>}')) == {"e": EVENT}
    without = {name: value for name, value in EVENT.items() if name != "detail"}
    assert msgspec.json.decode(made('{"e": <aws.events.event>}')) == {"e": without}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    )
)
def test_whatever_is_filled_in_the_result_is_json_and_carries_it(value: Any) -> None:
    transformer = {"InputPathsMap": {"x": "$.detail"}, "InputTemplate": '{"bare": <x>, "text": "[<x>]"}'}
    text = input_of({"InputTransformer": transformer}, {"detail": value}, rule_arn=ARN, ingested_at="")
    document = msgspec.json.decode(text)
    assert document["bare"] == value
    assert document["text"] == f"[{value if isinstance(value, str) else msgspec.json.encode(value).decode()}]"
