"""`homeport story`: what happened to a task, when, where and why."""

import time

import click

from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import age, moment, print_json, print_table, say
from homeport.cli.ps import status_text

__all__ = ["story"]


@click.command(cls=Command, short_help="Tell what happened to a task, and why.")
@click.argument("task")
@target_options
@json_option
def story(task: str, target: Target, as_json: bool) -> None:
    """Tell what happened to a task (TASK: the beginning of an id, or an ARN).

    Stories are kept for 30 days after a task has stopped, unless the control plane was told otherwise.
    """
    client = target.client()
    from homeport.cli.lookup import find_task

    answer = client.own("DescribeStory", task=find_task(client, task)["id"])
    if as_json:
        print_json(answer)
        return
    found, lines = answer["task"], answer["lines"]
    place = f" on {found['hostname']}" if found["hostname"] else ""
    click.echo(f"task {found['id']}  {found['taskDefinition']}  in {found['cluster']}{place}")
    since = found["stoppedAt"] or found["startedAt"] or found["createdAt"]
    click.echo(f"{status_text(found)} for {age(time.time() - since)}")
    if found["stoppedReason"]:
        click.echo(f"{found['stopCode'] or 'stopped'}: {found['stoppedReason']}")
    click.echo()
    if not lines:
        say("Nothing is known of what happened to it.")
        return
    print_table(
        ["TIME", "WHO", "WHAT"],
        ([moment(line["at"]), f"{line['actor']} {line['container'] or ''}", line["message"]] for line in lines),
    )
