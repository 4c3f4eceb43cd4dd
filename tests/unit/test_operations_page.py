"""docs/operations.md says what there is: every setting of both daemons."""

from pathlib import Path

import click
import pytest

from agent.main import main as agent
from controlplane.main import main as controlplane

TEXT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("daemon", [controlplane, agent])
def test_every_setting_is_there(daemon: click.Group) -> None:
    for option in daemon.commands["run"].params:
        if option.name not in ("config", "version"):
            names = {f"`{option.envvar}`"} if option.envvar else {f"`{each}`" for each in option.opts}
            assert any(name in TEXT for name in names), names
