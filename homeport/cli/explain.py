"""`homeport explain`: why a service, task or task definition doesn't run, and what every host says to one more."""

from typing import Any

import click

from homeport.cli.lastlines import show_last_lines, show_service_lines
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import mib, moment, print_json, print_table, short_id, vcpu

__all__ = ["explain"]

_DEFAULT_HOSTS = 50


@click.command(cls=Command, short_help="Say why a service or task isn't running, host by host.")
@click.argument("subject")
@click.option("--cluster", metavar="NAME", help="The cluster to look in; `default` if not said.")
@click.option(
    "--hosts",
    "max_hosts",
    type=click.IntRange(1, 5000),
    default=_DEFAULT_HOSTS,
    show_default=True,
    help="Show at most so many hosts: those that would take a task first, then the closest.",
)
@target_options
@json_option
def explain(subject: str, cluster: str | None, max_hosts: int, target: Target, as_json: bool) -> None:
    """Say why SUBJECT isn't running, and what would have to change.

    SUBJECT is a service (NAME or ARN), a task definition (FAMILY or FAMILY:REVISION), or a task (the beginning of an
    id). The table tells for every host whether it would take one more such task, and if not, all that is in the way.
    """
    client = target.client()
    answer = client.own("ExplainPlacement", subject=subject, cluster=cluster, maxHosts=max_hosts)
    if as_json:
        print_json(answer)
        return
    click.echo(answer["sentence"])
    for cause in answer.get("service", {}).get("causes", ())[1:]:
        click.echo(f"  Also: {cause}")
    found = answer.get("service")
    if found is not None and found["runningCount"] < found["desiredCount"]:
        show_service_lines(client, answer["name"], answer["cluster"])
    if answer.get("lines"):
        click.echo()
        print_table(
            ["TIME", "WHO", "WHAT"], ([moment(line["at"]), line["actor"], line["message"]] for line in answer["lines"])
        )
    if "task" in answer:
        show_last_lines(client, answer["task"])
    if answer["asks"] is not None:
        click.echo()
        click.echo(f"One more task asks for {_asks(answer['asks'])}.")
        _hosts(answer)


def _asks(asks: dict[str, Any]) -> str:
    parts = [f"{vcpu(asks['cpuUnits'])} vCPU", mib(asks["memoryMiB"])]
    if asks["gpus"]:
        parts.append(f"{asks['gpus']} GPU{'s' * (asks['gpus'] != 1)}")
    if asks["ports"]:
        parts.append(f"host ports {', '.join(asks['ports'])}")
    parts += [f"{name}={value}" for name, value in asks["attributes"].items()]
    parts += asks["constraints"]
    return f"{', '.join(parts)}; strategy {', '.join(asks['strategy'])}"


def _hosts(answer: dict[str, Any]) -> None:
    if not answer["hosts"]:
        click.echo("The cluster has no hosts: `homeport add-node` prints the command that joins one.")
        return
    click.echo()
    rows: list[list[Any]] = []
    for host in answer["hosts"]:
        said = [_said(obstacle) for obstacle in host["obstacles"]]
        said += [
            f"{each['port']}: held by task {short_id(each['task'])} ({each['group']})" for each in host["portsHeldBy"]
        ]
        said += host["drawbacks"]
        said = said or [""]
        left = [f"{vcpu(host['cpuUnitsLeft'])} vCPU", mib(host["memoryMiBLeft"])]
        head = [short_id(host["id"]), host["hostname"], *left, "yes" if host["wouldTake"] else "no"]
        rows.append([*head, said[0]])
        rows += [["", "", "", "", "", more] for more in said[1:]]
    print_table(["NODE", "HOST", "CPU LEFT", "MEMORY LEFT", "TAKES ONE", "WHY NOT, AND WHAT WOULD HELP"], rows)
    if (more := answer["considered"] - len(answer["hosts"])) > 0:
        click.echo(f"and {more} more hosts (--hosts {answer['considered']})")


def _said(obstacle: dict[str, str]) -> str:
    return f"{obstacle['reason'].rstrip('.')}: {obstacle['detail']} {obstacle['change']}".strip()
