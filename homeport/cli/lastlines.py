"""The last lines of what failed: mostly they say why."""

from typing import TYPE_CHECKING, Any, Final

import click

from homeport.cli.errors import CliError
from homeport.cli.output import short_id

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["show_last_lines", "show_service_lines"]

_LINES: Final = 5
#: Stops that somebody wanted: how the containers took it is of no interest.
_WANTED: Final = frozenset({"UserInitiated", "ServiceSchedulerInitiated"})


def show_last_lines(client: "Client", task: dict[str, Any]) -> None:
    """Print the last lines of each container that failed in a task that has stopped by itself, if there are any."""
    if task["lastStatus"] != "STOPPED" or task["stopCode"] in _WANTED:
        return
    for container in task["containers"]:
        if container["exitCode"]:
            name = container["name"]
            whose = f"{name} (all: homeport logs {short_id(task['id'])} {name})"
            _show(client, whose, {"task": task["id"], "container": name})


def show_service_lines(client: "Client", name: str, cluster: str) -> None:
    """Print the last lines of a service's tasks, those that have stopped among them, if there are any."""
    whose = f"its tasks (more: homeport logs {cluster}/{name} -n 100)"
    _show(client, whose, {"service": name, "cluster": cluster, "all": "true"})


def _show(client: "Client", whose: str, query: dict[str, str]) -> None:
    try:
        lines = client.lines("/homeport/v1/logs", {**query, "tail": str(_LINES)})
        texts = [line["text"] for line in lines if "text" in line]
    except CliError:
        return  # what is told stands without it
    if texts:
        click.echo(f"\nThe last lines of {whose}:")
        for text in texts:
            for each in text.rstrip("\r\n").split("\n")[-_LINES:]:
                click.echo(f"  {each}")
