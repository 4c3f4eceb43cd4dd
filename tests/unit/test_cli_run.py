from typing import Any

import click
import pytest

from homeport.cli.durations import DURATION, MOMENT
from homeport.cli.errors import CliError
from homeport.cli.run import one_off_definition, overrides, policy_tags

NOTHING: dict[str, Any] = {"command": (), "environment": {}, "cpu": None, "memory": None}


def test_an_image_alone_becomes_a_container_with_a_memory_limit() -> None:
    assert one_off_definition("registry:5000/a/Web_1.2:tag", publish=(), **NOTHING) == {
        "family": "run-Web_1-2",
        "containerDefinitions": [
            {"name": "main", "image": "registry:5000/a/Web_1.2:tag", "essential": True, "memory": 256}
        ],
    }


def test_everything_given_for_an_image_is_in_the_definition() -> None:
    (container,) = one_off_definition(
        "busybox",
        publish=("8080:80", "53/udp"),
        command=("sh", "-c", "true"),
        environment={"B": "2", "A": "1"},
        cpu=128,
        memory=64,
    )["containerDefinitions"]
    assert container["command"] == ["sh", "-c", "true"]
    assert container["environment"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    assert (container["cpu"], container["memory"]) == (128, 64)
    assert container["portMappings"] == [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 0, "containerPort": 53, "protocol": "udp"},
    ]


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="8080:x"):
        one_off_definition("busybox", publish=("8080:x",), **NOTHING)


def test_nothing_given_overrides_nothing() -> None:
    assert overrides([{"name": "a"}, {"name": "b"}], container=None, **NOTHING) is None


@pytest.mark.parametrize(
    ("containers", "chosen"),
    [
        ([{"name": "a", "essential": False}], "a"),
        ([{"name": "a", "essential": False}, {"name": "b", "essential": True}], "b"),
    ],
)
def test_the_only_or_the_only_essential_container_is_overridden(containers: list[dict[str, Any]], chosen: str) -> None:
    given = {**NOTHING, "command": ("x",), "memory": 32}
    assert overrides(containers, container=None, **given) == {
        "containerOverrides": [{"name": chosen, "command": ["x"], "memory": 32}]
    }


def test_of_several_essential_containers_one_must_be_named() -> None:
    containers = [{"name": "a"}, {"name": "b"}]
    with pytest.raises(CliError, match="several containers: a, b"):
        overrides(containers, container=None, **{**NOTHING, "command": ("x",)})
    named = overrides(containers, container="b", **{**NOTHING, "environment": {"K": "V"}})
    assert named == {"containerOverrides": [{"name": "b", "environment": [{"name": "K", "value": "V"}]}]}


def test_limits_retries_and_names_become_tags() -> None:
    tags = policy_tags(stop_after=599.5, retries=0, exclusive="nightly", if_taken="skip", count=1)
    assert {tag["key"]: tag["value"] for tag in tags} == {
        "homeport:timeout": "600",
        "homeport:retries": "0",
        "homeport:exclusive": "nightly",
        "homeport:exclusive-policy": "skip",
    }
    assert policy_tags() == []
    with pytest.raises(click.UsageError, match="needs --exclusive"):
        policy_tags(if_taken="wait")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5", 1.5), ("10m", 600), ("2h30m", 9000), ("7d", 604800)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "x", "10 m", "m", "-5", "1w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a length of time"):
        DURATION.convert(text, None, None)


def test_moments_are_times_or_how_long_ago() -> None:
    assert MOMENT.convert("2026-01-31T12:00:00+00:00", None, None) == 1769860800
    assert MOMENT.convert("1h", None, None) - MOMENT.convert("0s", None, None) == pytest.approx(-3600, abs=5)
    with pytest.raises(click.BadParameter, match="neither a time"):
        MOMENT.convert("yesterday", None, None)
