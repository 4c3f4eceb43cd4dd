"""The table of operations and the page made from it."""

from pathlib import Path

import pytest

from controlplane.api.docs import render
from controlplane.api.model import load_service
from controlplane.api.registry import HANDLERS, operation
from controlplane.api.services import load_handlers, load_services

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_every_handler_is_of_an_operation_in_its_model() -> None:
    assert ("ecs", "CreateCluster") in load_handlers(load_services())


def test_a_handler_of_no_operation_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    services = load_services()
    load_handlers(services)
    monkeypatch.setitem(HANDLERS, ("ecs", "CreateClustre"), lambda context, request: {})
    with pytest.raises(RuntimeError, match="CreateClustre"):
        load_handlers(services)


def test_an_operation_has_one_handler() -> None:
    load_handlers(load_services())
    with pytest.raises(ValueError, match="two handlers"):
        operation("ecs", "CreateCluster")(lambda context, request: {})


def test_the_page_of_the_api_is_current() -> None:
    assert PAGE.read_text() == render(), "run: python -m controlplane.api.docs > docs/api.md"


def test_the_page_lists_every_ecs_operation_with_its_state() -> None:
    operations = load_service("ecs").operations
    assert operations is not None
    rows = [line.split("|")[1:3] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    states = {name.strip(): state.strip() for name, state in rows}
    assert len(operations) == 88
    for name in operations:
        assert states[name] == ("served" if ("ecs", name) in HANDLERS else "not served")
