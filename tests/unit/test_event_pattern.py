"""Event patterns: AWS's documented ones as a table, refusals with their reason, and the rules once more, plainly."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.events.pattern import MAX_DEPTH, MAX_PATTERN, InvalidPattern, compile_pattern


def matches(pattern: Any, event: Any) -> bool:
    return compile_pattern(msgspec.json.encode(pattern).decode()).matches(event)


EC2 = {
    "version": "0",
    "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "account": "111122223333",
    "time": "2017-12-22T18:43:48Z",
    "region": "us-west-1",
    "resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0"],
    "detail": {"instance-id": "i-1234567890abcdef0", "state": "terminated"},
}


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        # Exact values; lists are alternatives, fields are all needed.
        ({"a": ["x"]}, {"a": "x"}, {"a": "X"}),
        ({"a": ["x", "y"]}, {"a": "y"}, {"a": "z"}),
        ({"a": ["x"], "b": ["y"]}, {"a": "x", "b": "y"}, {"a": "x"}),
        ({"a": [1]}, {"a": 1.0}, {"a": "1"}),
        ({"a": [1]}, {"a": 1}, {"a": True}),
        ({"a": [True]}, {"a": True}, {"a": 1}),
        ({"a": [False]}, {"a": False}, {"a": 0}),
        # Null and empty strings are different things.
        ({"a": [None]}, {"a": None}, {"a": ""}),
        ({"a": [""]}, {"a": ""}, {"a": None}),
        ({"a": [None]}, {"a": None}, {}),
        # Nested fields and lists.
        ({"d": {"s": ["x"]}}, {"d": {"s": "x"}}, {"d": {"t": "x"}}),
        ({"a": ["x"]}, {"a": ["w", "x"]}, {"a": ["w"]}),
        ({"a": ["x"]}, {"a": [["w"], ["x"]]}, {"a": []}),
        ({"d": {"s": ["x"]}}, {"d": [{"s": "w"}, {"s": "x"}]}, {"d": ["s", "x"]}),
        ({"d": {"s": ["x"], "t": [1]}}, {"d": [{"s": "x", "t": 1}]}, {"d": [{"s": "x"}, {"t": 1}]}),
        # Prefix and suffix.
        ({"a": [{"prefix": "us-"}]}, {"a": "us-east-1"}, {"a": "eu-us-"}),
        ({"a": [{"prefix": {"equals-ignore-case": "EventB"}}]}, {"a": "eventbridge"}, {"a": "even"}),
        ({"a": [{"suffix": ".png"}]}, {"a": "x.png"}, {"a": "x.PNG"}),
        ({"a": [{"suffix": {"equals-ignore-case": "tBridge"}}]}, {"a": "EVENTBRIDGE"}, {"a": "bridget"}),
        ({"a": [{"prefix": ""}]}, {"a": "anything"}, {"a": 5}),
        ({"a": [{"equals-ignore-case": "Alice"}]}, {"a": "aLICE"}, {"a": "alic"}),
        # Wildcards.
        ({"a": [{"wildcard": "dir/*.png"}]}, {"a": "dir/x/y.png"}, {"a": "dir/x.png2"}),
        ({"a": [{"wildcard": "*.png"}]}, {"a": ".png"}, {"a": "png"}),
        ({"a": [{"wildcard": "a*b*c"}]}, {"a": "abbc"}, {"a": "acb"}),
        ({"a": [{"wildcard": "a*a"}]}, {"a": "aa"}, {"a": "a"}),
        ({"a": [{"wildcard": r"a\*b\\*"}]}, {"a": "a*b\\c"}, {"a": "axb\\c"}),
        ({"a": [{"wildcard": "exact"}]}, {"a": "exact"}, {"a": "exactly"}),
        # Anything but.
        ({"a": [{"anything-but": "x"}]}, {"a": "y"}, {"a": "x"}),
        ({"a": [{"anything-but": "x"}]}, {"a": 5}, {}),
        ({"a": [{"anything-but": ["x", "y"]}]}, {"a": "z"}, {"a": "y"}),
        ({"a": [{"anything-but": [100, 200]}]}, {"a": 300}, {"a": 200.0}),
        ({"a": [{"anything-but": {"prefix": "us-"}}]}, {"a": "eu-1"}, {"a": "us-1"}),
        ({"a": [{"anything-but": {"prefix": ["us-", "eu-"]}}]}, {"a": "ap-1"}, {"a": "eu-1"}),
        ({"a": [{"anything-but": {"suffix": ".png"}}]}, {"a": "x.gif"}, {"a": "x.png"}),
        ({"a": [{"anything-but": {"suffix": [".png", ".gif"]}}]}, {"a": "x.txt"}, {"a": "x.gif"}),
        ({"a": [{"anything-but": {"equals-ignore-case": "Up"}}]}, {"a": "down"}, {"a": "UP"}),
        ({"a": [{"anything-but": {"equals-ignore-case": ["Up", "in"]}}]}, {"a": "down"}, {"a": "IN"}),
        ({"a": [{"anything-but": {"wildcard": "*/lib/*"}}]}, {"a": "/usr/bin/x"}, {"a": "/usr/lib/x"}),
        ({"a": [{"anything-but": {"wildcard": ["*/lib/*", "*/bin/*"]}}]}, {"a": "/usr/x"}, {"a": "/usr/bin/x"}),
        ({"a": [{"anything-but": "x"}]}, {"a": ["x", "y"]}, {"a": ["x", "x"]}),
        # Numbers.
        ({"a": [{"numeric": ["=", 100]}]}, {"a": 100.0}, {"a": 101}),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5}, {"a": 0}),
        ({"a": [{"numeric": ["<", -3.5]}]}, {"a": -4}, {"a": -3.5}),
        ({"a": [{"numeric": [">=", 1]}]}, {"a": 1}, {"a": "1"}),
        ({"a": [{"numeric": [">=", 0]}]}, {"a": 0}, {"a": True}),
        # Addresses.
        ({"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "10.0.0.255"}, {"a": "10.0.1.0"}),
        ({"a": [{"cidr": "10.0.0.77/24"}]}, {"a": "10.0.0.1"}, {"a": "10.0.0.1/32"}),
        ({"a": [{"cidr": "2001:db8::/32"}]}, {"a": "2001:db8::1"}, {"a": "10.0.0.1"}),
        # There or not; only leaves are.
        ({"a": [{"exists": True}]}, {"a": None}, {}),
        ({"a": [{"exists": True}]}, {"a": ["x"]}, {"a": {"b": 1}}),
        ({"a": [{"exists": False}]}, {}, {"a": ""}),
        ({"a": [{"exists": False}]}, {"a": {"b": 1}}, {"a": [1]}),
        ({"d": {"a": [{"exists": False}]}}, {}, {"d": {"a": 1}}),
        ({"a": [{"exists": False}, "x"]}, {"a": "x"}, {"a": "y"}),
        # Or.
        ({"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"b": "y"}, {"a": "y", "b": "x"}),
        ({"c": [1], "$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"a": "x", "c": 1}, {"a": "x"}),
        ({"d": {"$or": [{"a": [1]}, {"b": {"c": [2]}}]}}, {"d": {"b": {"c": 2}}}, {"d": {"b": {"c": 1}}}),
        ({"$or": [{"prefix": "x"}, "y"]}, {"$or": "y"}, {"$or": "z"}),  # the name of a field
        # As in EventBridge's guide.
        ({"source": ["aws.ec2"], "detail": {"state": ["terminated"]}}, EC2, {**EC2, "source": "aws.ecs"}),
        ({"time": [{"prefix": "2017-12-22"}]}, EC2, {**EC2, "time": "2018-12-22T18:43:48Z"}),
        ({"resources": [{"suffix": "i-1234567890abcdef0"}]}, EC2, {**EC2, "resources": []}),
    ],
)
def test_patterns(pattern: Any, matching: Any, other: Any) -> None:
    assert matches(pattern, matching)
    assert not matches(pattern, other)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ("{}", "an empty object is not allowed"),
        ('{"a": {}}', "an empty object is not allowed at 'a'"),
        ('{"a": []}', "an empty array is not allowed at 'a'"),
        ('{"a": "x"}', '"a" must be an object or an array'),
        ('{"d": {"a": 1}}', "\"a\" must be an object or an array at 'd'"),
        ('{"a": [["x"]]}', "must be a string, number, true, false, null"),
        ('{"a": [{"like": "x"}]}', "unrecognized match type like at 'a'; there are anything-but, cidr"),
        ('{"a": [{"prefix": "x", "suffix": "y"}]}', "only one key is allowed in a match expression, not 2"),
        ('{"a": [{"prefix": 1}]}', "prefix match pattern must be a string"),
        ('{"a": [{"suffix": {"wildcard": "x"}}]}', "suffix match pattern must be a string"),
        ('{"a": [{"wildcard": "a**b"}]}', "consecutive wildcard characters"),
        (r'{"a": [{"wildcard": "a\\x"}]}', "a backslash in wildcard must be followed by"),
        ('{"a": [{"anything-but": ["x", 1]}]}', "strings or numbers, all of one kind"),
        ('{"a": [{"anything-but": []}]}', "an empty array is not allowed in anything-but"),
        ('{"a": [{"anything-but": {"numeric": ["=", 1]}}]}', "an object in anything-but has one of prefix"),
        ('{"a": [{"anything-but": {"prefix": [1]}}]}', "anything-but prefix match pattern must be a string"),
        ('{"a": [{"numeric": [">"]}]}', "numeric takes an array like"),
        ('{"a": [{"numeric": ["!=", 1]}]}', "unrecognized numeric range operator"),
        ('{"a": [{"numeric": [">", "1"]}]}', "must be a number within -5e9 and 5e9"),
        ('{"a": [{"numeric": ["=", 5000000001]}]}', "must be a number within -5e9 and 5e9"),
        ('{"a": [{"numeric": [">", 5, "<", 5]}]}', "the bottom of a numeric range must be less than its top"),
        ('{"a": [{"numeric": ["<", 1, ">", 5]}]}', "> or >= first"),
        ('{"a": [{"cidr": "10.0.0.0"}]}', "one slash is required"),
        ('{"a": [{"cidr": "10.0.0.0/33"}]}', "malformed CIDR"),
        ('{"a": [{"exists": "yes"}]}', "exists match pattern must be true or false"),
        ('{"$or": [{"a": [1]}, {"b": 1}]}', "\"b\" must be an object or an array at '$or[1]'"),
        ('{"a": ["' + "x" * MAX_PATTERN + '"]}', f"more than {MAX_PATTERN}"),
        ('{"a":' * (MAX_DEPTH + 1) + "[1]" + "}" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} levels"),
        ('{"a":' * 600 + "[1]" + "}" * 600, "levels"),
        (
            "{" + ",".join(f'"{name}": {{"$or": [{{"x":[1]}},{{"y":[1]}}]}}' for name in "abcdefghij") + "}",
            "1024 combinations, more than 1000",
        ),
    ],
)
def test_patterns_that_are_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidPattern) as refused:
        compile_pattern(text)
    assert why in str(refused.value)


SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "ab", "abc", "A", "10.0.0.1"])
EVENTS = st.dictionaries(
    st.sampled_from("ab"),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        max_leaves=6,
    ),
)
OPERATORS = st.one_of(
    st.builds(lambda text: {"prefix": text}, st.sampled_from(["", "a", "ab"])),
    st.builds(lambda text: {"suffix": text}, st.sampled_from(["", "c", "b"])),
    st.builds(lambda text: {"equals-ignore-case": text}, st.sampled_from(["A", "aB"])),
    st.builds(lambda text: {"wildcard": text}, st.sampled_from(["*", "a*", "*b*", "a*c"])),
    st.builds(lambda value: {"anything-but": value}, st.sampled_from(["a", ["a", "ab"], 1, {"prefix": "a"}])),
    st.builds(lambda low: {"numeric": [">=", low, "<", low + 2]}, st.integers(-2, 2)),
    st.builds(lambda there: {"exists": there}, st.booleans()),
    st.just({"cidr": "10.0.0.0/8"}),
)
LEAVES = st.lists(SCALARS | OPERATORS, min_size=1, max_size=3)
PATTERNS = st.recursive(
    st.dictionaries(st.sampled_from("ab"), LEAVES, min_size=1),
    lambda inner: (
        st.dictionaries(st.sampled_from("ab"), inner | LEAVES, min_size=1)
        | st.builds(lambda one, two: {"$or": [one, two]}, inner, inner)
    ),
    max_leaves=5,
)


def plainly(pattern: Any, value: Any) -> bool:
    """The rules once more, as short as they can be said."""
    if isinstance(value, list):
        objects = [each for each in flat(value) if isinstance(each, dict)]
        return any(plainly(pattern, each) for each in objects or [{}])
    fields = value if isinstance(value, dict) else {}
    for name, wanted in pattern.items():
        if name == "$or":
            ok = any(plainly(each, fields) for each in wanted)
        elif isinstance(wanted, dict):
            ok = plainly(wanted, fields.get(name, {}))
        else:
            found = flat([fields[name]] if name in fields else [])
            leaves = [each for each in found if not isinstance(each, dict)]
            ok = any(one(each, leaf) for each in wanted for leaf in leaves)
            ok = ok or (not leaves and {"exists": False} in wanted)
        if not ok:
            return False
    return True


def flat(value: list[Any]) -> list[Any]:
    return [leaf for each in value for leaf in (flat(each) if isinstance(each, list) else [each])]


def one(wanted: Any, leaf: Any) -> bool:
    if not isinstance(wanted, dict):
        return type(wanted) is type(leaf) and bool(wanted == leaf)
    ((operator, operand),) = wanted.items()
    if operator == "anything-but":
        if isinstance(operand, dict):
            return not one(operand, leaf)
        return not any(one(each, leaf) for each in (operand if isinstance(operand, list) else [operand]))
    if operator == "exists":
        return bool(operand)
    if operator == "numeric":
        return type(leaf) is int and leaf in range(operand[1], operand[3])
    if not isinstance(leaf, str):
        return False
    if operator == "cidr":
        return leaf == "10.0.0.1"
    if operator == "equals-ignore-case":
        return bool(leaf.upper() == operand.upper())
    return glob({"prefix": f"{operand}*", "suffix": f"*{operand}", "wildcard": str(operand)}[operator], leaf)


def glob(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return glob(pattern[1:], text) or (bool(text) and glob(pattern, text[1:]))
    return bool(text) and text[0] == pattern[0] and glob(pattern[1:], text[1:])


@given(PATTERNS, EVENTS)
def test_a_compiled_pattern_says_what_the_rules_say(pattern: Any, event: Any) -> None:
    assert matches(pattern, event) == plainly(pattern, event)


JSON = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "b", "$or", "prefix", "numeric", "exists", "anything-but", "wildcard", "cidr"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@given(JSON, EVENTS)
def test_whatever_it_is_it_is_refused_or_matched(pattern: Any, event: Any) -> None:
    with contextlib.suppress(InvalidPattern):
        assert matches(pattern, event) in (True, False)
