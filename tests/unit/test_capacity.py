"""Tests of how tasks are shared out among capacity providers."""

from typing import Any

import pytest

from controlplane.api.ecs.capacity import launch_type_of, providers_for_service, providers_of


def item(name: str, **numbers: int) -> dict[str, Any]:
    return {"capacityProvider": name, **numbers}


@pytest.mark.parametrize(
    ("strategy", "count", "shares"),
    [
        ([], 2, {"": 2}),
        ([item("a")], 3, {"a": 3}),
        ([item("a", weight=1), item("b", weight=4)], 10, {"a": 2, "b": 8}),
        ([item("a", base=1, weight=1), item("b", weight=4)], 1, {"a": 1}),
        ([item("a", base=2, weight=1), item("b", weight=3)], 10, {"a": 4, "b": 6}),
        ([item("a", base=1), item("b", weight=1)], 3, {"a": 1, "b": 2}),
        ([item("a", weight=1), item("b", weight=0)], 2, {"a": 2}),
        ([item("a", base=2), item("b")], 5, {"a": 5}),
        ([item("a", base=100, weight=1), item("b", weight=1)], 10, {"a": 10}),
    ],
)
def test_base_first_then_in_proportion(strategy: list[dict[str, Any]], count: int, shares: dict[str, int]) -> None:
    chosen = providers_of(strategy, count)
    assert {name: chosen.count(name) for name in chosen} == shares
    assert len(chosen) == count


@pytest.mark.parametrize(
    ("strategy", "desired", "present", "count", "chosen"),
    [
        ([], 4, {}, 2, ["", ""]),
        ([item("a", base=2), item("b", weight=1)], 4, {}, 3, ["a", "a", "b"]),
        ([item("a", base=2), item("b", weight=1)], 4, {"b": 2}, 2, ["a", "a"]),
        ([item("a", base=2), item("b", weight=1)], 4, {"a": 1, "b": 2}, 1, ["a"]),
        ([item("a", weight=1), item("b", weight=1)], 4, {"a": 2, "b": 1}, 1, ["b"]),
        ([item("a", weight=1), item("b", weight=1)], 4, {"a": 4}, 2, ["b", "b"]),
        ([item("a", weight=1), item("b", weight=1)], 2, {"gone": 2}, 2, ["a", "b"]),
    ],
)
def test_a_services_next_tasks_go_where_they_are_missing(
    strategy: list[dict[str, Any]], desired: int, present: dict[str, int], count: int, chosen: list[str]
) -> None:
    assert providers_for_service(strategy, desired, present, count) == chosen


@pytest.mark.parametrize(
    ("provider", "given", "shown"),
    [("", "EXTERNAL", "EXTERNAL"), ("FARGATE_SPOT", "EC2", "FARGATE"), ("mine", "FARGATE", "EC2")],
)
def test_the_launch_type_goes_by_the_provider(provider: str, given: str, shown: str) -> None:
    assert launch_type_of(provider, given) == shown
