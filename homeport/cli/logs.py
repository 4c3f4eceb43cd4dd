"""`homeport logs`: what a task's containers wrote."""

import sys
from typing import TYPE_CHECKING, Any

import click

from homeport.cli.durations import MOMENT
from homeport.cli.errors import CliError, NotFound
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import moment

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["logs", "show_log"]


@click.command(cls=Command, short_help="Show what a task's container wrote.")
@click.argument("task")
@click.argument("container", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on showing what comes, until the container ends or Ctrl-C.")
@click.option("-n", "--tail", type=click.IntRange(0), metavar="LINES", help="Only the last lines.")
@click.option("--since", type=MOMENT, help="Only what is newer: 10m, or 2026-01-31T12:00.")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was written.")
@target_options
@json_option
def logs(
    task: str,
    container: str | None,
    follow: bool,
    tail: int | None,
    since: float | None,
    timestamps: bool,
    target: Target,
    as_json: bool,
) -> None:
    """Show the log of a task's container (TASK: the beginning of an id, or an ARN).

    The lines come from the task's host. What the container wrote to its standard error goes to standard error.
    """
    from homeport.cli.lookup import find_task

    client = target.client()
    found = find_task(client, task)
    if found["archived"]:
        raise NotFound(
            f"The log of task {found['id']} is gone: it went with its containers, which are removed after a while.",
            hint=f"What happened to the task is kept longer: homeport story {task}",
        )
    name = container or _only_container(found)
    show_log(client, found["id"], name, follow=follow, tail=tail, since=since, timestamps=timestamps, as_json=as_json)


def _only_container(task: dict[str, Any]) -> str:
    names = [container["name"] for container in task["containers"]]
    if len(names) > 1:
        raise CliError(
            f"The task has several containers: {', '.join(names)}.", hint=f"Name one: homeport logs TASK {names[0]}"
        )
    return str(names[0])


def show_log(
    client: "Client",
    task_id: str,
    container: str,
    *,
    follow: bool = False,
    tail: int | None = None,
    since: float | None = None,
    timestamps: bool = False,
    as_json: bool = False,
) -> None:
    """Print a container's log until it ends. Raises CliError if it breaks off."""
    query = {"task": task_id, "container": container}
    if follow:
        query["follow"] = "true"
    if tail is not None:
        query["tail"] = str(tail)
    if since is not None:
        query["since"] = repr(since)
    for line in client.lines("/homeport/v1/logs", query, follow=follow):
        if "error" in line:
            raise CliError(f"The log broke off: {line['error']}.")
        if as_json:
            _write(sys.stdout, _json_line(line))
        else:
            text = line["text"].rstrip("\r\n")
            out = sys.stderr if line["stream"] == "stderr" else sys.stdout
            _write(out, f"{moment(line['at'])} {text}" if timestamps else text)


def _write(out: Any, text: str) -> None:
    # Not through click.echo: its encoding detection costs more than the line, and logs are long.
    out.write(text + "\n")
    out.flush()


def _json_line(line: dict[str, Any]) -> str:
    import json

    return json.dumps(line)
