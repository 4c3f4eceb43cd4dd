"""`homeport ps`: the tasks."""

import time
from typing import Any

import click

from homeport.cli.options import Command, Target, cluster_option, json_option, target_options
from homeport.cli.output import age, print_json, print_table, say, short_id

__all__ = ["ports", "ps", "status_text"]


@click.command(cls=Command)
@click.option("-a", "--all", "everything", is_flag=True, help="Also tasks that have stopped within the last hour.")
@click.option("--node", metavar="NODE", help="Only those on this host, whatever their cluster.")
@cluster_option
@target_options
@json_option
def ps(everything: bool, node: str | None, cluster: str, target: Target, as_json: bool) -> None:
    """List tasks."""
    from homeport.cli.lookup import all_pages, find_node

    client = target.client()
    where = {"cluster": cluster} if node is None else {"node": find_node(client, node)["id"]}
    tasks = all_pages(client, "FindTasks", "tasks", stopped=everything or None, **where)
    tasks.sort(key=lambda task: (task["createdAt"], task["id"]))
    if as_json:
        print_json(tasks)
    elif tasks:
        _print(tasks, everything=everything)
    else:
        place = f"in the cluster {cluster}" if node is None else f"on the node {node}"
        say(f"No tasks run {place}." if not everything else f"There are no tasks {place}.")
        say("  Start one: homeport run IMAGE     or: aws ecs run-task --task-definition NAME")
        if not everything:
            say("  Tasks that have stopped: homeport ps -a")


def _print(tasks: list[dict[str, Any]], *, everything: bool) -> None:
    now = time.time()
    columns = ["TASK", "DEFINITION", "STATUS", "NODE", "AGE", "PORTS"]
    print_table(
        [*columns, "REASON"] if everything else columns,
        (
            [
                short_id(task["id"]),
                task["taskDefinition"],
                status_text(task),
                task["hostname"] or "-",
                age(now - (task["startedAt"] or task["createdAt"])),
                ports(task) or "-",
                *([task["stoppedReason"] or ""] if everything else ()),
            ]
            for task in tasks
        ),
    )


def status_text(task: dict[str, Any]) -> str:
    """Say where a task is: its status, its health if it has a check, how it exited, how often it was restarted."""
    notes = []
    if task["lastStatus"] == "STOPPED":
        notes += [f"exit {each['exitCode']}" for each in task["containers"] if each["exitCode"] is not None]
    elif task["desiredStatus"] == "STOPPED":
        notes.append("stopping")
    elif task["health"] != "UNKNOWN":
        notes.append(task["health"].lower())
    restarts = sum(each["restartCount"] for each in task["containers"])
    if restarts:
        notes.append(f"{restarts} restart{'s' * (restarts != 1)}")
    return f"{task['lastStatus']} ({', '.join(notes)})" if notes else str(task["lastStatus"])


def ports(task: dict[str, Any]) -> str:
    """Render the published ports: `8080->80/tcp`."""
    found = {
        f"{port['hostPort']}->{port['containerPort']}/{port['protocol']}"
        for container in task["containers"]
        for port in container["ports"]
    }
    return ", ".join(sorted(found))
