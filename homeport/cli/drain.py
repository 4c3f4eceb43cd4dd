"""`homeport drain`: no new tasks for a host."""

import time
from typing import Final

import click

from homeport.cli.durations import DURATION
from homeport.cli.errors import CliError
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import print_json, say, short_id

__all__ = ["drain"]

_POLL_S: Final = 1.0


@click.command(cls=Command, short_help="Place no more tasks on a host.")
@click.argument("node")
@click.option("--undo", is_flag=True, help="Let new tasks come to the host again.")
@click.option("--wait", is_flag=True, help="Wait until no task is left on the host.")
@click.option("--timeout", type=DURATION, default="1h", show_default=True, help="How long --wait waits.")
@target_options
@json_option
def drain(node: str, undo: bool, wait: bool, timeout: float, target: Target, as_json: bool) -> None:
    """Place no more tasks on NODE (the beginning of its id, or its host name).

    As in ECS, tasks that were started by themselves go on running until they end or are stopped.
    """
    from homeport.cli.lookup import find_node

    client = target.client()
    found = find_node(client, node)
    answer = client.ecs(
        "update_container_instances_state",
        cluster=found["cluster"],
        containerInstances=[found["id"]],
        status="ACTIVE" if undo else "DRAINING",
    )
    if answer["failures"]:
        reason = answer["failures"][0].get("reason", "unknown")
        raise CliError(f"The node {found['id']} can't be {'activated' if undo else 'drained'}: {reason}.")
    if wait and not undo:
        _wait_until_empty(target, found["id"], timeout)
    found = find_node(client, found["id"])
    if as_json:
        print_json(found)
    elif undo:
        click.echo(f"{short_id(found['id'])} ({found['hostname']}) takes tasks again.")
    else:
        left = found["tasks"]
        tasks = f"{_still_run(left)} on it." if left else "No task is left on it."
        click.echo(f"{short_id(found['id'])} ({found['hostname']}) takes no more tasks. {tasks}")
        if left:
            say(f"  See them: homeport ps --node {short_id(found['id'])}     Undo: homeport drain {node} --undo")


def _still_run(tasks: int) -> str:
    return "1 task still runs" if tasks == 1 else f"{tasks} tasks still run"


def _wait_until_empty(target: Target, node_id: str, timeout_s: float) -> None:
    from homeport.cli.lookup import find_node, progress

    client = target.client()
    deadline = time.monotonic() + timeout_s
    with progress("draining") as show:
        while left := find_node(client, node_id)["tasks"]:
            show(f"draining: {left} task{'s' * (left != 1)} left")
            if time.monotonic() > deadline:
                raise CliError(
                    f"After {timeout_s:g} s {_still_run(left)} on the node {node_id}.",
                    hint=f"See them: homeport ps --node {short_id(node_id)}; stop one: homeport stop TASK",
                )
            time.sleep(_POLL_S)
