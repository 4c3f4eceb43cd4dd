"""The last lines of containers that failed: mostly they say why."""

from typing import TYPE_CHECKING, Any, Final

import click

from homeport.cli.errors import CliError
from homeport.cli.output import short_id

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["show_last_lines"]

_LINES: Final = 5
#: Stops that somebody wanted: how the containers took it is of no interest.
_WANTED: Final = frozenset({"UserInitiated", "ServiceSchedulerInitiated"})


def show_last_lines(client: "Client", task: dict[str, Any]) -> None:
    """Print the last lines of each container that failed in a task that has stopped by itself, if there are any."""
    if task["lastStatus"] != "STOPPED" or task["stopCode"] in _WANTED:
        return
    for container in task["containers"]:
        if container["exitCode"]:
            _show(client, task["id"], container["name"])


def _show(client: "Client", task_id: str, container: str) -> None:
    query = {"task": task_id, "container": container, "tail": str(_LINES)}
    try:
        texts = [line["text"] for line in client.lines("/homeport/v1/logs", query) if "text" in line]
    except CliError:
        return  # the story stands without it
    if texts:
        click.echo(f"\nThe last lines of {container} (all: homeport logs {short_id(task_id)} {container}):")
        for text in texts:
            for each in text.rstrip("\r\n").split("\n")[-_LINES:]:
                click.echo(f"  {each}")
