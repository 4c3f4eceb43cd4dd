"""`homeport status`: the installation at a glance."""

import time
from typing import Any

import click

from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import age, print_json

__all__ = ["status"]


@click.command(cls=Command, short_help="Show how the installation is.")
@target_options
@json_option
def status(target: Target, as_json: bool) -> None:
    """Show how the installation is: where it listens, how many hosts and tasks it has."""
    client = target.client()
    found = client.own("DescribeStatus")
    if as_json:
        print_json({**found, "endpointUrl": client.connection.endpoint_url, "source": client.connection.source})
        return
    nodes, tasks = found["nodes"], found["tasks"]
    others = found["networkUrl"] or "none (it listens on this machine only)"
    rows = [
        ("control plane", f"{client.connection.endpoint_url} (from {client.connection.source})"),
        ("version", f"{found['version']}, up for {age(time.time() - found['startedAt'])}"),
        ("for hosts", others + (f"  {found['caHash']}" if found["caHash"] else "")),
        ("account", f"{found['account']} in {found['region']}"),
        ("clusters", found["clusters"]),
        ("nodes", ", ".join(_counts(nodes["registered"], nodes))),
        ("tasks", f"{tasks['running']} running, {tasks['pending']} pending, {tasks['stopped']} stopped lately"),
        ("logs", _logs(found["logs"])),
        ("definitions", found["taskDefinitions"]),
        ("revision", found["revision"]),
    ]
    for name, value in rows:
        click.echo(f"{name + ':':15} {value}")


def _counts(registered: int, nodes: dict[str, int]) -> list[str]:
    if not registered:
        return ["none; `homeport add-node` prints the command that joins one"]
    return [f"{registered} registered", *(f"{nodes[key]} {key}" for key in ("connected", "draining", "impaired"))]


def _logs(logs: dict[str, Any]) -> str:
    limit = f" of {_size(logs['limitBytes'])}" if logs["limitBytes"] else ""
    problem = f"; NOT TAKEN NOW: {logs['problem']}" if logs["problem"] else ""
    return f"{_size(logs['usedBytes'])}{limit}{problem}"


def _size(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB" if size >= 1024**3 else f"{size / 1024**2:.1f} MiB"
