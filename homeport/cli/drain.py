"""`homeport drain`: no new tasks for a host, and its services' tasks elsewhere."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from homeport.cli.durations import DURATION
from homeport.cli.errors import EXIT_INTERRUPTED, CliError
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import age, console, print_json, say, short_id

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["drain"]

_POLL_S: Final = 1.0


@click.command(cls=Command, short_help="Take a host out of service, or back in.")
@click.argument("node")
@click.option(
    "--deadline",
    type=DURATION,
    metavar="TIME",
    help="Stop what services still have there after this time (e.g. 10m), whatever their health bounds say.",
)
@click.option("--wait/--no-wait", default=True, help="Stay and show how far it is [default: --wait].")
@click.option("--timeout", type=DURATION, metavar="TIME", help="Give up waiting after this time; the drain goes on.")
@click.option("--cancel", "--undo", "cancel", is_flag=True, help="Let tasks come to the host again.")
@target_options
@json_option
def drain(
    node: str,
    deadline: float | None,
    wait: bool,
    timeout: float | None,
    cancel: bool,
    target: Target,
    as_json: bool,
) -> None:
    """Place no more tasks on NODE (the beginning of its id, or its host name), and move its services' tasks away.

    Services start a task's replacement elsewhere first, and stay within their health bounds. As in ECS, tasks that were
    started by themselves go on running until they end or are stopped: they are named at the end.

    Ctrl-C ends the waiting, not the drain; running the command again shows how far it is.
    """
    from homeport.cli.lookup import find_node

    client = target.client()
    found = find_node(client, node)
    if cancel:
        _cancel(client, found, as_json=as_json)
        return
    answer = client.own("DrainNode", node=found["id"], deadlineS=deadline)
    try:
        if wait:
            answer = _wait(client, answer, timeout)
    except KeyboardInterrupt:
        say(f"The drain of {_name(found)} goes on without you.")
        say(f"  See how far it is: homeport drain {node}     Call it off: homeport drain {node} --cancel")
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        print_json({**answer["node"], "drain": answer["drain"]})
    else:
        _tell_end(node, answer)


def _name(node: dict[str, Any]) -> str:
    return f"{short_id(node['id'])} ({node['hostname']})"


def _cancel(client: "Client", node: dict[str, Any], *, as_json: bool) -> None:
    answer = client.ecs(
        "update_container_instances_state", cluster=node["cluster"], containerInstances=[node["id"]], status="ACTIVE"
    )
    if answer["failures"]:
        reason = answer["failures"][0].get("reason", "unknown")
        raise CliError(f"The node {node['id']} can't take tasks again: {reason}.")
    answer = client.own("DescribeDrain", node=node["id"])
    if as_json:
        print_json({**answer["node"], "drain": answer["drain"]})
    else:
        click.echo(f"{_name(node)} takes tasks again.")


# ---------------------------------------------------------------- waiting


def _wait(client: "Client", answer: dict[str, Any], timeout_s: float | None) -> dict[str, Any]:
    """Show how the drain goes until it is done; return the last answer.

    On a terminal what is left is kept up to date in place; else each change is a line. Raises CliError after
    `timeout_s`, or if somebody has called the drain off.
    """
    give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    with _display() as show:
        while not answer["drain"]["done"]:
            show(answer)
            if give_up_at is not None and time.monotonic() >= give_up_at:
                left = _count(answer["drain"]["serviceTasks"], "service task")
                raise CliError(
                    f"After {age(timeout_s or 0)} there is still {left} on the node. The drain goes on.",
                    hint="What it waits for: " + "; ".join(_holds(answer)),
                )
            time.sleep(_POLL_S)
            answer = client.own("DescribeDrain", node=answer["node"]["id"])
            if not answer["drain"]["draining"]:
                done = (
                    "deregistered the node" if answer["node"]["status"] == "INACTIVE" else "set the node ACTIVE again"
                )
                raise CliError(f"The drain of {_name(answer['node'])} is over: somebody has {done}.")
    return answer


class _display:  # used as a function
    """`with _display() as show`: `show(answer)` tells how a drain goes, on stderr."""

    def __enter__(self) -> "_display":
        out = console(stderr=True)
        self._status = out.status("draining") if out.is_terminal else None
        self._said: list[str] = []
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, answer: dict[str, Any]) -> None:
        lines = list(_lines(answer))
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text("\n  ".join([lines[0] + _deadline(answer), *lines[1:]])))
        elif lines != self._said:
            say("\n  ".join(lines))
        self._said = lines


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    drain = answer["drain"]
    yield f"Draining {_name(answer['node'])}: {_count(drain['serviceTasks'], 'service task')} left"
    yield from _holds(answer)


def _holds(answer: dict[str, Any]) -> list[str]:
    return [
        f"{each['service']}: {each['tasks']} left" + (f", waits for {each['waitsFor']}" if each["waitsFor"] else "")
        for each in answer["drain"]["services"]
    ]


def _deadline(answer: dict[str, Any]) -> str:
    at = answer["drain"]["deadlineAt"]
    if at is None:
        return ""
    left = at - time.time()
    return f"; what is left is stopped in {age(left)}" if left > 0 else "; the deadline has passed"


# ---------------------------------------------------------------- the end


def _tell_end(node: str, answer: dict[str, Any]) -> None:
    drain = answer["drain"]
    name = _name(answer["node"])
    alone, left, replaced = drain["standaloneTasks"], drain["serviceTasks"], drain["replacedTasks"]
    if left:
        click.echo(f"{name} takes no more tasks; {_count(left, 'service task')} left to be moved{_deadline(answer)}.")
        for line in _holds(answer):
            say(f"  {line}")
    elif alone:
        click.echo(f"{name} takes no more tasks, and services have none left on it.")
    elif replaced:
        click.echo(f"{name} takes no more tasks; {_count(replaced, 'task')} there may still run, and were replaced.")
    else:
        click.echo(f"{name} takes no more tasks, and none is left on it.")
    if alone:
        verb = "runs" if len(alone) == 1 else "run"
        say(f"{_count(alone, 'standalone task')} still {verb} there, and nobody moves those. Wait, or stop them:")
        for task in alone:
            say(f"  homeport stop {short_id(task['id'])}     # {task['taskDefinition']}, {task['lastStatus']}")
    say(f"  Call it off: homeport drain {node} --cancel")


def _count(tasks: list[dict[str, Any]], what: str) -> str:
    return f"{len(tasks)} {what}{'' if len(tasks) == 1 else 's'}"
