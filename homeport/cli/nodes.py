"""`homeport nodes`: the hosts, what they have, and how they are."""

import time
from typing import Any

import click

from homeport.cli.errors import NotFound
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import age, mib, moment, print_json, print_table, say, short_id, vcpu

__all__ = ["nodes"]


@click.command(cls=Command, short_help="List the hosts, or show one.")
@click.argument("node", required=False)
@click.option("--cluster", metavar="NAME", help="Only those of this cluster.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that were deregistered lately.")
@target_options
@json_option
def nodes(node: str | None, cluster: str | None, everything: bool, target: Target, as_json: bool) -> None:
    """List the hosts, or show one of them (NODE: the beginning of its id, or its host name)."""
    from homeport.cli.lookup import all_pages, find_node

    client = target.client()
    if node is not None:
        found = find_node(client, node)
        if cluster is not None and found["cluster"] != cluster:
            raise NotFound(f"The node {found['id']} is in the cluster {found['cluster']}, not in {cluster}.")
        if as_json:
            print_json(found)
        else:
            _show(found)
        return
    listed = all_pages(client, "DescribeNodes", "nodes", cluster=cluster, inactive=everything or None)
    listed.sort(key=lambda each: (each["cluster"], each["hostname"], each["id"]))
    if as_json:
        print_json(listed)
    elif listed:
        _print(listed)
    else:
        say("No hosts have joined yet.")
        say("  `homeport add-node` prints the command that joins one; `homeport up` joins this machine by itself.")


def _print(listed: list[dict[str, Any]]) -> None:
    now = time.time()
    many = len({each["cluster"] for each in listed}) > 1
    columns = ["NODE", "HOST", "STATUS", "CONNECTED", "TASKS", "CPU", "MEMORY", "DOCKER", "HEALTH", "SINCE"]
    print_table(
        [*columns[:2], "CLUSTER", *columns[2:]] if many else columns,
        (
            [
                short_id(each["id"]),
                each["hostname"],
                *([each["cluster"]] if many else ()),
                each["status"],
                "yes" if each["connected"] else "no",
                each["tasks"],
                f"{vcpu(each['cpuUnits']['used'])}/{vcpu(each['cpuUnits']['total'])}",
                f"{mib(each['memoryMiB']['used'])}/{mib(each['memoryMiB']['total'])}",
                each["dockerVersion"] or "-",
                health(each),
                "-" if each["since"] is None else age(now - each["since"]),
            ]
            for each in listed
        ),
    )


def health(node: dict[str, Any]) -> str:
    """Say how a host is: OK, UNKNOWN (not heard of), or what is wrong."""
    if node["health"] != "IMPAIRED":
        return str(node["health"])
    return "; ".join(f"{each['type']}: {each['reason']}" for each in node["conditions"] if not each["ok"])


def _show(node: dict[str, Any]) -> None:
    cpu, memory = node["cpuUnits"], node["memoryMiB"]
    seen = "never since the control plane started" if node["lastSeenAt"] is None else moment(node["lastSeenAt"])
    rows = [
        ("node", node["id"]),
        ("host", node["hostname"]),
        ("cluster", node["cluster"]),
        ("status", _status(node)),
        ("connected", "yes" if node["connected"] else "no"),
        ("last seen", seen),
        ("registered", moment(node["registeredAt"])),
        ("health", health(node)),
        ("tasks", node["tasks"]),
        ("CPU", f"{vcpu(cpu['used'])} of {vcpu(cpu['total'])} vCPU reserved by tasks"),
        ("memory", f"{mib(memory['used'])} of {mib(memory['total'])} reserved by tasks"),
        ("GPUs", f"{node['gpus']['used']} of {node['gpus']['total']} reserved by tasks"),
        ("disk", mib(node["diskMiB"])),
        ("Docker", node["dockerVersion"] or "-"),
        ("agent", node["agentVersion"]),
        ("metrics", node["metricsAddress"] or "-"),
        ("ARN", node["containerInstanceArn"]),
    ]
    for name, value in rows:
        click.echo(f"{name + ':':12} {value}")
    for condition in node["conditions"]:
        click.echo(f"{'condition:':12} {condition['type']} {'ok' if condition['ok'] else condition['reason']}")
    capabilities = [name for name in node["attributes"] if "ecs.capability." in name]
    for name, value in sorted(node["attributes"].items()):
        if name not in capabilities:
            click.echo(f"{'attribute:':12} {name}{f' = {value}' if value else ''}")
    if capabilities:
        click.echo(f"{'attribute:':12} and {len(capabilities)} ECS capabilities (--json lists them)")


def _status(node: dict[str, Any]) -> str:
    """Say a host's status, and since when it is drained until when at the latest."""
    status = str(node["status"])
    if node.get("drainingSince") is not None:
        status += f" since {moment(node['drainingSince'])}"
    if node.get("drainDeadlineAt") is not None:
        status += f", with a deadline at {moment(node['drainDeadlineAt'])}"
    return status
