"""Tests of how tasks are shared out among capacity providers."""

from typing import Any

import pytest

from controlplane.api.ecs.capacity import providers_of


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
