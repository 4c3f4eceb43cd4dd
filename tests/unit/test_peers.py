"""bench/peers: who runs, as events tell; what is published."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.peers.page import BEGIN, END, PAGES, RESULTS, rewritten
from bench.peers.suite import compared
from bench.peers.watch import Running


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    """Watch an Engine that says these events (second, action, container), and nothing more."""
    made: list[Running] = []

    def watch(*said: tuple[int, str, str]) -> Running:
        lines = [f"{second}000000000 {action} {container}" for second, action, container in said]
        client = tmp_path / "docker"
        client.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\nexec sleep 60\n")
        client.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        made.append(Running("unix:///nowhere.sock"))
        return made[-1]

    yield watch
    for each in made:
        each.close()


def test_a_moment_is_that_of_the_event_that_made_it_true(events: Callable[..., Running]) -> None:
    running = events((10, "start", "a"), (11, "start", "b"), (12, "die", "a"), (13, "start", "c"))
    assert running.until(lambda ids: len(ids) == 2) == 11
    assert running.until(lambda ids: ids == {"b"}) == 12, "what came at the same time counts one by one"
    assert running.now() == {"b", "c"}


def test_what_never_becomes_true_fails(events: Callable[..., Running]) -> None:
    running = events((10, "start", "a"))
    with pytest.raises(AssertionError, match="1 containers run"):
        running.until(lambda ids: len(ids) == 2, within_s=0.5)


def test_ratios_are_taken_within_a_round() -> None:
    sides = {"engine": {0: 1.0, 1: 2.0, 2: 4.0}, "homeport": {0: 1.5, 1: 2.0, 2: 8.0}, "swarm": {0: 3.0, 2: 4.0}}
    figures = compared(sides)
    assert figures["homeport_to_engine"] == {"min": 1.0, "median": 1.5, "max": 2.0, "runs": 3}
    assert figures["swarm_to_engine"] == {"min": 1.0, "median": 2.0, "max": 3.0, "runs": 2}
    assert figures["engine_s"]["median"] == 2.0
    assert "engine_to_engine" not in figures


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_the_figures_that_were_measured(page: Path) -> None:
    figures = PAGES[page](json.loads(RESULTS.read_text())["peers"])
    assert page.read_text() == rewritten(page.read_text(), figures), "run: python -m bench.peers.page"


def test_figures_change_and_the_words_around_them_stay() -> None:
    page = rewritten(f"before\n{BEGIN}\nold\n{END}\nafter\n", "new")
    assert page == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert rewritten(page, "new") == page
