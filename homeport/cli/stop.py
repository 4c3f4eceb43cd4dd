"""`homeport stop`: stops tasks."""

import click

from homeport.cli.durations import DURATION
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import print_json, short_id
from homeport.cli.ps import status_text

__all__ = ["stop"]


@click.command(cls=Command, short_help="Stop tasks.")
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@click.option("--reason", metavar="TEXT", help="Kept with the task as its stoppedReason.")
@click.option("--wait", is_flag=True, help="Wait until they have stopped.")
@click.option("--timeout", type=DURATION, default="10m", show_default=True, help="How long --wait waits for each.")
@target_options
@json_option
def stop(tasks: tuple[str, ...], reason: str | None, wait: bool, timeout: float, target: Target, as_json: bool) -> None:
    """Stop tasks (TASK: the beginning of an id, or an ARN).

    Containers get their stop signal, and are killed after their stopTimeout (30 s by default).
    """
    from homeport.cli.lookup import find_task, wait_for_task

    client = target.client()
    # All are looked up before any is stopped: a mistyped id stops nothing.
    found = [find_task(client, reference) for reference in tasks]
    for task in found:
        if task["lastStatus"] != "STOPPED":
            client.ecs("stop_task", cluster=task["cluster"], task=task["taskArn"], reason=reason)
    ended = []
    for task in found:
        if wait:
            task = wait_for_task(client, task["id"], "STOPPED", timeout_s=timeout)
        else:
            task = find_task(client, task["id"])
        ended.append(task)
        if not as_json:
            click.echo(f"{short_id(task['id'])} {task['taskDefinition']}: {status_text(task)}")
    if as_json:
        print_json(ended)
