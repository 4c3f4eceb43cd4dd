"""`homeport story`: what happened to a task or a service, when, where and why."""

import time
from typing import TYPE_CHECKING, Any

import click

from homeport.cli.errors import CliError, NotFound
from homeport.cli.lastlines import show_last_lines
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import age, moment, print_json, print_table, say
from homeport.cli.ps import status_text

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["story"]


@click.command(cls=Command, short_help="Tell what happened to a task or a service, and why.")
@click.argument("task")
@target_options
@json_option
def story(task: str, target: Target, as_json: bool) -> None:
    """Tell what happened to a task (TASK: the beginning of an id, or an ARN), or to the service of that name.

    Stories are kept for 30 days after a task has stopped, unless the control plane was told otherwise.
    """
    client = target.client()
    from homeport.cli.lookup import find_task

    try:
        answer = client.own("DescribeStory", task=find_task(client, task)["id"])
    except CliError as error:
        told = _of_service(client, task, error)
        if as_json:
            print_json(told)
        else:
            _show_service(told)
        return
    if as_json:
        print_json(answer)
    else:
        _show_task(answer)
        show_last_lines(client, answer["task"])


def _of_service(client: "Client", name: str, no_task: CliError) -> dict[str, Any]:
    """Return the history of the service of a name that means no task. Raises `no_task` if there is none either."""
    if not isinstance(no_task, NotFound) and no_task.code != "InvalidParameterException":
        raise no_task
    try:
        answer = client.own("DescribeService", service=name, events="all")
    except NotFound:
        raise no_task from None
    return {"service": answer["service"], "lines": answer["lines"]}


def _show_service(answer: dict[str, Any]) -> None:
    found = answer["service"]
    click.echo(f"service {found['name']}  {found['taskDefinition'] or '-'}  in {found['cluster']}")
    click.echo(f"{found['state']}: {found['desired']} desired, {found['running']} running, {found['pending']} pending")
    click.echo()
    _print_lines(answer["lines"])


def _show_task(answer: dict[str, Any]) -> None:
    found = answer["task"]
    place = f" on {found['hostname']}" if found["hostname"] else ""
    click.echo(f"task {found['id']}  {found['taskDefinition']}  in {found['cluster']}{place}")
    since = found["stoppedAt"] or found["startedAt"] or found["createdAt"]
    click.echo(f"{status_text(found)} for {age(time.time() - since)}")
    if found["stoppedReason"]:
        click.echo(f"{found['stopCode'] or 'stopped'}: {found['stoppedReason']}")
    click.echo()
    _print_lines(answer["lines"])


def _print_lines(lines: list[dict[str, Any]]) -> None:
    if not lines:
        say("Nothing is known of what happened to it.")
        return
    print_table(
        ["TIME", "WHO", "WHAT"],
        ([moment(line["at"]), f"{line['actor']} {line['container'] or ''}", line["message"]] for line in lines),
    )
