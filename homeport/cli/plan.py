"""`homeport plan`: what an update of a service, or the loss of a host, would do. Nothing is changed."""

from typing import Any

import click

from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import print_json, print_table, short_id

__all__ = ["plan"]


@click.group(short_help="Try out an update, or the loss of a host, without doing it.")
def plan() -> None:
    """Try something out on paper: what would be placed where, what would find no host, and why.

    Nothing is changed. What fits as things are now may not fit later.
    """


@plan.command("update", cls=Command, short_help="Update a service.")
@click.argument("service")
@click.option("--cluster", metavar="NAME", help="The service's cluster; `default` if not said.")
@click.option("--task-definition", metavar="TASKDEF", help="Roll to this one: FAMILY, FAMILY:REVISION or ARN.")
@click.option("--desired-count", type=click.IntRange(min=0), metavar="N", help="Run N tasks.")
@click.option("--force", is_flag=True, help="Replace all tasks though the definition stays.")
@target_options
@json_option
def update(
    service: str,
    cluster: str | None,
    task_definition: str | None,
    desired_count: int | None,
    force: bool,
    target: Target,
    as_json: bool,
) -> None:
    """Say what updating SERVICE would do, within its deployment configuration."""
    answer = target.client().own(
        "PlanService",
        service=service,
        cluster=cluster,
        taskDefinition=task_definition,
        desiredCount=desired_count,
        force=force or None,
    )
    if as_json:
        print_json(answer)
        return
    click.echo(answer["sentence"])
    if answer["placed"]:
        click.echo()
        print_table(["NODE", "HOST", "NEW TASKS"], _rows(answer))


@plan.command("lose", cls=Command, short_help="Lose a host.")
@click.argument("node")
@target_options
@json_option
def lose(node: str, target: Target, as_json: bool) -> None:
    """Say what would become of the tasks on NODE (the beginning of its id, or its host name) if it were gone."""
    _host(node, target, as_json=as_json, drain=False)


@plan.command("drain", cls=Command, short_help="Drain a host.")
@click.argument("node")
@target_options
@json_option
def drain(node: str, target: Target, as_json: bool) -> None:
    """Say what would become of the tasks on NODE (the beginning of its id, or its host name) if it were drained."""
    _host(node, target, as_json=as_json, drain=True)


def _host(node: str, target: Target, *, as_json: bool, drain: bool) -> None:
    from homeport.cli.lookup import find_node

    client = target.client()
    answer = client.own("PlanHostLoss", node=find_node(client, node)["id"], drain=drain)
    if as_json:
        print_json(answer)
        return
    click.echo(answer["sentence"])
    rows = []
    for service in answer["services"]:
        rows += [[service["service"], *row] for row in _rows(service)]
        if service["unplaced"]:
            rows.append([service["service"], "-", "no host", f"{service['unplaced']}   {service['detail']}"])
    if rows:
        click.echo()
        print_table(["SERVICE", "NODE", "HOST", "TASKS"], rows)


def _rows(outcome: dict[str, Any]) -> list[list[Any]]:
    return [[short_id(each["node"]), each["hostname"], each["tasks"]] for each in outcome["placed"]]
