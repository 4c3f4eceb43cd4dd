"""What a task definition's log configuration makes of a container's output."""

from typing import Any

import pytest
import re2

from controlplane.api.ecs.log_shipping import LogDefaults, awslogs_problems, default_shipping, shipping
from homeport.spec import ContainerSpec, LogShipping
from tests.fakes.records import a_definition, a_spec

NEEDED = {"awslogs-group": "/shop/web", "awslogs-region": "eu-home-1"}


def log(**options: str) -> dict[str, Any]:
    return {
        "logDriver": "awslogs",
        "options": NEEDED | {name.replace("_", "-"): text for name, text in options.items()},
    }


def test_awslogs_with_nothing_but_what_it_needs() -> None:
    assert shipping(log(), LogDefaults()) == LogShipping(group="/shop/web")
    assert shipping(log(), LogDefaults(mode="non-blocking")).mode == "non-blocking"


def test_each_option_is_honoured() -> None:
    given = log(
        awslogs_stream_prefix="ecs",
        awslogs_create_group="true",
        awslogs_multiline_pattern="^INFO",
        mode="non-blocking",
        max_buffer_size="25m",
    )
    assert shipping(given, LogDefaults()) == LogShipping(
        group="/shop/web",
        stream_prefix="ecs",
        create_group=True,
        multiline_pattern="^INFO",
        mode="non-blocking",
        max_buffer_size="25m",
    )


def test_the_stream_is_named_as_the_ecs_agent_names_it() -> None:
    assert shipping(log(awslogs_stream_prefix="ecs"), LogDefaults()).stream("web", "cafe", "d0c") == "ecs/web/cafe"
    assert shipping(log(), LogDefaults()).stream("web", "cafe", "d0c") == "d0c"


@pytest.mark.parametrize(
    ("format_", "line"),
    [
        ("%Y-%m-%d %H:%M:%S", "2026-11-22 18:31:55 hello"),
        (r"\[%b %d, %Y %H:%M:%S\]", "[May 01, 2026 19:00:01] hello"),
        ("%A, %d %B %y %I:%M %p", "Sunday, 22 November 26 06:31 PM"),
        ("%a %j %w%L%f %z %Z", "Sun 326 0.123123456 +0100 CET"),
    ],
)
def test_a_datetime_format_begins_an_event_where_it_matches(format_: str, line: str) -> None:
    pattern = shipping(log(awslogs_datetime_format=format_), LogDefaults()).multiline_pattern
    assert re2.search(pattern, line)
    assert not re2.search(pattern, "    at Foo.bar(Foo.java:17)")


def test_containers_without_a_log_configuration_are_collected() -> None:
    assert default_shipping("default", "web", LogDefaults()) == LogShipping(
        group="/homeport/default/web", stream_prefix="homeport", create_group=True, retention_days=7
    )
    assert default_shipping("default", "web", LogDefaults(collect=False)) is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"awslogs-group": ""}, "requires options: awslogs-group"),
        ({"awslogs-group": "a b"}, "awslogs-group must be 1 to 512 characters"),
        ({"awslogs-groupe": "x"}, "has no option awslogs-groupe; it has: awslogs-create-group"),
        ({"awslogs-stream-prefix": "a:b"}, "no ':' or '*'"),
        ({"awslogs-create-group": "yes"}, "awslogs-create-group must be true or false"),
        ({"mode": "fast"}, "mode must be one of: blocking, non-blocking"),
        ({"max-buffer-size": "lots"}, "max-buffer-size must be a size like 10m"),
        (
            {"awslogs-multiline-pattern": "("},
            "awslogs-multiline-pattern isn't a regular expression (RE2 syntax): missing",
        ),
        ({"awslogs-datetime-format": "(%Y"}, "awslogs-datetime-format isn't a regular expression"),
        ({"awslogs-datetime-format": "%Y", "awslogs-multiline-pattern": "x"}, "can't be given together"),
    ],
)
def test_options_that_cannot_be_honoured(options: dict[str, str], text: str) -> None:
    (problem,) = awslogs_problems({"logDriver": "awslogs", "options": NEEDED | options})
    assert text in problem


def test_good_options_have_no_problem() -> None:
    assert list(awslogs_problems(log(max_buffer_size="1.5 GiB", awslogs_create_group="false", mode="blocking"))) == []


def test_only_awslogs_and_silence_are_shipped() -> None:
    web = {"name": "web", "image": "busybox", "memory": 64}
    definition = a_definition(
        {**web, "logConfiguration": log()},
        {**web, "name": "quiet"},
        {**web, "name": "file", "logConfiguration": {"logDriver": "json-file"}},
        {**web, "name": "none", "logConfiguration": {"logDriver": "none"}},
    )
    spec = a_spec(definition)

    def goes_to(container: ContainerSpec) -> tuple[str, str]:
        return container.log.driver if container.log else "", container.shipping.group if container.shipping else ""

    assert [goes_to(container) for container in spec.containers] == [
        ("", "/shop/web"),
        ("", "/homeport/c/web"),
        ("json-file", ""),
        ("none", ""),
    ]
