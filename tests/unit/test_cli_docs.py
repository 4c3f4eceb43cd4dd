"""docs/cli.md says what there is: every command, exit code and connection variable."""

from pathlib import Path

import click

from controlplane.api.registry import HANDLERS
from controlplane.api.services import load_handlers, load_services
from homeport.cli import errors
from homeport.cli.group import cli
from homeport.cli.up import up

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def test_every_command_is_there_and_has_a_help_text() -> None:
    assert isinstance(cli, click.Group)
    for name, command in cli.commands.items():
        assert f"`{name}" in TEXT, name
        assert command.help
        assert all(option.help for option in command.params if isinstance(option, click.Option)), name


def test_every_exit_code_is_there() -> None:
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert all(f"| {code} |" in TEXT for code in codes | {0, 2})


def test_every_variable_of_up_is_there() -> None:
    names = {parameter.envvar for parameter in up.params} - {None}
    assert all(f"`{name}`" in TEXT for name in names)


def test_every_operation_of_our_own_is_there() -> None:
    load_handlers(load_services())
    assert all(f"`{name}`" in TEXT for service, name in HANDLERS if service == "homeport")
