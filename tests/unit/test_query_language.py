"""The cluster query language: what each operator selects, and errors that say where."""

import pytest
from msgspec.structs import replace

from controlplane.scheduling.language import MAX_EXPRESSION_LENGTH, QueryError, parse_query
from controlplane.scheduling.model import Candidate
from controlplane.state.load import HostLoad
from controlplane.state.presence import Presence
from tests.fakes.records import an_instance

#: 2026-06-01T00:00:00Z
REGISTERED_AT = 1_780_272_000.0


@pytest.fixture
def host() -> Candidate:
    load = HostLoad(tasks=3)
    load.groups.update({"family:web": 2, "service:db": 1})
    attributes = {"ecs.availability-zone": "home-1a", "disk": "ssd", "ram.gb": "16", "empty": "", "with space": "x"}
    instance = an_instance("h", attributes=attributes, registered_at=REGISTERED_AT)
    instance = replace(instance, attributes={"rack": "r 7"}, facts=replace(instance.facts, agent_version="1.10.2"))
    return Candidate(instance, load, Presence(connected=True, since=1.0, last_seen_at=1.0))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("attribute:disk == ssd", True),
        ("attribute:disk equals hdd", False),
        ("attribute:disk != hdd", True),
        ("attribute:disk not_equals ssd", False),
        ("attribute:ecs.availability-zone in [home-1a, home-1b]", True),
        ("attribute:disk in [hdd]", False),
        ("attribute:disk !in [hdd]", True),
        ("attribute:disk not_in ['ssd', \"hdd\"]", False),
        ("attribute:rack == 'r 7'", True),
        ('attribute:rack == "r 7"', True),
        ("attribute:ecs.availability-zone =~ home-.*", True),
        ("attribute:ecs.availability-zone matches home", False),  # a pattern matches the whole value
        ("attribute:ecs.availability-zone !~ home-1[ab]", False),
        ("attribute:ecs.availability-zone not_matches away.*", True),
        ("attribute:disk =~ '(ssd|nvme)'", True),
        ("attribute:disk =~ s|h|ssd", True),
        ("attribute:disk =~ x|y||attribute:disk exists", True),
        ("attribute:disk exists", True),
        ("attribute:empty exists", True),
        ("attribute:none exists", False),
        ("attribute:none !exists", True),
        ("attribute:disk not_exists", False),
        ("attribute:ram.gb >= 8", True),
        ("attribute:ram.gb < 9", False),  # as numbers
        ("attribute:disk > abc", True),  # as text
        ("attribute:disk less_than_equal ssd", True),
        # without the attribute only the negative operators hold
        ("attribute:none == x", False),
        ("attribute:none != x", True),
        ("attribute:none !in [x]", True),
        ("attribute:none !~ x", True),
        ("attribute:none > 1", False),
        ("task:group == family:web", True),
        ("task:group == database", False),
        ("task:group != service:db", False),
        ("task:group =~ service:.*", True),
        ("task:group in [nothing, service:db]", True),
        ("task:group exists", True),
        ("agentConnected == true", True),
        ("agentConnected == false", False),
        ("agentVersion >= 1.9.0", True),  # 1.10 is newer than 1.9
        ("agentVersion < 1.10.2", False),
        ("agentVersion == 1.10.2", True),
        ("ec2InstanceId == i-1", False),
        ("registeredAt >= 2026-06-01", True),
        ("registeredAt > 2026-06-01T00:00:00Z", False),
        ("registeredAt < 2026-06-01T02:00:01+02:00", True),
        ("registeredAt == 2026-06-01T00:00:00", True),
        ("runningTasksCount == 3", True),
        ("runningTasksCount greater_than 3", False),
        # precedence: not, and, or
        ("attribute:none exists and attribute:none exists or attribute:disk exists", True),
        ("attribute:disk exists or attribute:none exists and attribute:none exists", True),
        ("(attribute:disk exists || attribute:none exists) && attribute:none exists", False),
        ("not attribute:none exists and attribute:disk exists", True),
        ("not(attribute:disk exists)", False),
        ("!(attribute:disk == hdd) && !attribute:none exists", True),
        ("not not attribute:disk exists", True),
        ("  attribute:disk==ssd  ", True),
    ],
)
def test_operators(host: Candidate, expression: str, expected: bool) -> None:
    assert parse_query(expression).matches(host) is expected


def test_a_host_that_was_never_heard_of_is_not_connected(host: Candidate) -> None:
    assert parse_query("agentConnected == false").matches(replace(host, presence=None))


def test_put_attributes_win(host: Candidate) -> None:
    moved = replace(host, instance=replace(host.instance, attributes={"disk": "hdd"}))
    assert parse_query("attribute:disk == hdd").matches(moved)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "the expression is empty"),
        ("   ", "the expression is empty"),
        ("disk == ssd", "unexpected 'disk' at position 1; expected a subject"),
        ("attribute:disk", "it ends too early, at position 15; expected an operator"),
        ("attribute:disk is ssd", "unexpected 'is' at position 16; expected an operator"),
        ("attribute:disk ==", "it ends too early, at position 18; expected a value"),
        ("attribute:disk == ssd and", "it ends too early, at position 26; expected a subject"),
        ("attribute:disk in ssd", "unexpected 'ssd' at position 19; expected a list in brackets"),
        ("attribute:disk in [a, b", "it ends too early, at position 24"),
        ("(attribute:disk exists", "it ends too early, at position 23"),
        ("attribute:disk exists)", "unexpected ')' at position 22"),
        ("attribute:disk =~ '[a'", "the pattern at position 19 can't be used: missing ]: [a"),
        ("runningTasksCount == few", "expected a whole number at position 22, got 'few'"),
        ("agentVersion > new", "expected a version such as 1.2.3 at position 16, got 'new'"),
        ("registeredAt > monday", "expected an ISO 8601 date or time at position 16, got 'monday'"),
        ("agentConnected \x1f", "unexpected '\\x1f' at position 16; expected an operator"),
        ("agentConnected > true", "> at position 16 can't be used with agentConnected"),
        ("runningTasksCount in [1]", "in at position 19 can't be used with runningTasksCount"),
        ("registeredAt exists", "exists at position 14 can't be used with registeredAt"),
        ("!" * 1900 + "attribute:disk exists", "the expression is nested too deeply"),
        ("a" * (MAX_EXPRESSION_LENGTH + 1), "has 2001 characters; 2000 are allowed"),
    ],
)
def test_errors_say_where_and_what_was_expected(expression: str, message: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_query(expression)
    assert message in str(caught.value)


def test_a_pattern_that_would_stall_others_does_not_stall_this_one(host: Candidate) -> None:
    patient = replace(host, instance=replace(host.instance, attributes={"disk": "a" * 100}))
    assert not parse_query("attribute:disk =~ '(a+)+b'").matches(patient)


def test_deep_parentheses_that_parse_can_also_be_asked(host: Candidate) -> None:
    depth = 60
    expression = "(" * depth + "attribute:disk exists" + " and attribute:disk exists)" * depth
    assert parse_query(expression).matches(host)
