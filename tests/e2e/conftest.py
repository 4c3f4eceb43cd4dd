from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Installation, installation
from tests.engine.conftest import busybox

__all__ = ["busybox", "control_plane", "homeport"]


@pytest.fixture
def control_plane(tmp_path: Path) -> Iterator[Installation]:
    """A control plane alone."""
    with installation(tmp_path) as running:
        running.start_control_plane()
        yield running


@pytest.fixture
def homeport(control_plane: Installation) -> Installation:
    """A control plane and one agent on this machine's Engine."""
    control_plane.join()
    control_plane.start_agent()
    return control_plane
