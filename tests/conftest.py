"""What holds for all tests.

Hypothesis judges what the code does, never how long a busy machine takes for it. Tests run on several workers, a file
on one of them: its fixtures are made once, and tests of different files must not meet in names, ports or files.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("homeport", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("homeport")

#: One machine has one Engine; more workers than this would wait for it in turn.
_MOST_WORKERS = 4


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores: tests of real Engines wait most of the time, the others compute."""
    return min((os.cpu_count() or 1) + 1, _MOST_WORKERS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests wait for real Engines come first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: not any(item.iter_markers("e2e")) and not any(item.iter_markers("engine")))
