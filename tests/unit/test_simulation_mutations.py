"""The simulator finds deliberate bugs within the stated number of seeds: else its silence would prove nothing."""

import os
import subprocess
import sys
from typing import Final

import pytest

from tests.simulation.mutations import MUTATIONS

#: Those that the first seeds find.
_QUICK: Final = (
    "durable-at-once",
    "removals-lost",
    "reasons-lost",
    "ends-uncounted",
    "always-restarted",
    "all-are-ours",
)


def _search(*names: str) -> None:
    """Search in a process of its own: what a seed means depends on how strings are hashed."""
    searched = subprocess.run(
        [sys.executable, "-m", "tests.simulation.mutations", *names],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert searched.returncode == 0, searched.stdout + searched.stderr


def test_there_are_more_than_ten_and_each_has_a_name_of_its_own() -> None:
    names = [mutation.name for mutation in MUTATIONS]
    assert len(names) > 10
    assert len(set(names)) == len(names)
    assert set(_QUICK) <= set(names)


def test_the_first_seeds_find_what_is_badly_broken() -> None:
    _search(*_QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", [mutation.name for mutation in MUTATIONS])
def test_each_bug_is_found(name: str) -> None:
    _search(name)
