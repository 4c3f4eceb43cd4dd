"""`homeport services`, `service`, `scale`: what services want, what they have, and what was said of them."""

import time
from typing import TYPE_CHECKING, Any, Final

import click

from homeport.cli.durations import DURATION
from homeport.cli.errors import CliError
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import age, moment, print_json, print_table, say, short_id
from homeport.cli.ps import ports, status_text

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["event_text", "find_service", "scale", "service", "service_option", "services"]

#: Events that `homeport service` shows without being asked for all.
_EVENTS: Final = 10
_POLL_S: Final = 0.5

service_option = click.option(
    "--cluster", metavar="NAME", help="The service's cluster; needed only if several clusters have one of that name."
)


@click.command(cls=Command, short_help="List the services.")
@click.option("--cluster", metavar="NAME", help="Only those of this cluster.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that were deleted within the last day.")
@target_options
@json_option
def services(cluster: str | None, everything: bool, target: Target, as_json: bool) -> None:
    """List the services: what they want and have, and what was last said of them."""
    from homeport.cli.lookup import all_pages

    found = all_pages(target.client(), "FindServices", "services", cluster=cluster, inactive=everything or None)
    if as_json:
        print_json(found)
    elif found:
        _print(found)
    else:
        say("There are no services." if cluster is None else f"There are no services in the cluster {cluster}.")
        say("  Make one: aws ecs create-service --service-name NAME --task-definition NAME --desired-count 2")


def _print(found: list[dict[str, Any]]) -> None:
    now = time.time()
    many = len({each["cluster"] for each in found}) > 1
    columns = ["SERVICE", "DEFINITION", "DESIRED", "RUNNING", "PENDING", "STATE", "DEPLOYED", "LAST EVENT"]
    print_table(
        [*columns[:1], "CLUSTER", *columns[1:]] if many else columns,
        (
            [
                each["name"],
                *([each["cluster"]] if many else ()),
                each["taskDefinition"] or "-",
                each["desired"],
                each["running"],
                each["pending"],
                each["state"],
                f"{age(now - each['deployments'][0]['createdAt'])} ago" if each["deployments"] else "-",
                _last_event(each, now),
            ]
            for each in found
        ),
    )


def _last_event(found: dict[str, Any], now: float) -> str:
    event = found["lastEvent"]
    return "-" if event is None else f"{age(now - event['at'])} ago: {event_text(event)}"


def event_text(event: dict[str, Any]) -> str:
    """Return an event's message without ECS's beginning "(service NAME) ": it is clear here whose it is."""
    message = str(event["message"])
    head, separator, rest = message.partition(") ")
    return rest if separator and head.startswith("(service ") else message


def find_service(client: "Client", name: str, cluster: str | None) -> dict[str, Any]:
    """Return the service that a name, CLUSTER/NAME or ARN means. Raises NotFound, or CliError if several."""
    answer = client.own("DescribeDeployments", service=name, cluster=cluster, maxResults=1)
    found: dict[str, Any] = answer["service"]
    return found


# ---------------------------------------------------------------- one service


@click.command(cls=Command, short_help="Show a service: its deployments, tasks and events.")
@click.argument("name")
@service_option
@click.option("--all", "everything", is_flag=True, help="All events that are kept (30 days), and who asked for what.")
@target_options
@json_option
def service(name: str, cluster: str | None, everything: bool, target: Target, as_json: bool) -> None:
    """Show a service (NAME, CLUSTER/NAME or its ARN): what it wants and has, and its last events."""
    events = "all" if everything else "last"
    answer = target.client().own("DescribeService", service=name, cluster=cluster, events=events)
    if as_json:
        print_json(answer)
        return
    _show(answer["service"])
    _show_deployments(answer["service"]["deployments"])
    _show_tasks(answer["tasks"])
    lines = answer["lines"] if everything else answer["events"][-_EVENTS:]
    if lines:
        click.echo()
        print_table(["TIME", "EVENT"], ([moment(line["at"]), event_text(line)] for line in lines))


def _show(found: dict[str, Any]) -> None:
    configuration = found["deploymentConfiguration"]
    least, most = configuration.get("minimumHealthyPercent"), configuration.get("maximumPercent")
    controller = "" if found["controller"] == "ECS" else f", {found['controller']}"
    rows = [
        ("service", found["name"]),
        ("cluster", found["cluster"]),
        ("state", found["state"]),
        ("tasks", f"{found['desired']} desired, {found['running']} running, {found['pending']} pending"),
        ("definition", found["taskDefinition"] or "-"),
        ("strategy", f"{found['schedulingStrategy']}{controller}"),
        ("bounds", "-" if least is None or most is None else f"{least} to {most} percent of the tasks"),
        ("created", moment(found["createdAt"])),
        ("ARN", found["serviceArn"]),
    ]
    for name, value in rows:
        click.echo(f"{name + ':':12} {value}")


def _show_deployments(deployments: list[dict[str, Any]]) -> None:
    for each in deployments:
        failed = f", {each['failedTasks']} failed one after another" if each["failedTasks"] else ""
        click.echo(
            f"{'deployment:':12} {each['position']} {each['id']} of {each['taskDefinition']}: {each['rolloutState']} "
            f"({each['running']} running, {each['pending']} pending{failed})"
        )
        if each["rolloutState"] != "COMPLETED" and each["lastFailure"]:
            click.echo(f"{'':12} last failure: {each['lastFailure']}")


def _show_tasks(tasks: list[dict[str, Any]]) -> None:
    if not tasks:
        return
    now = time.time()
    click.echo()
    print_table(
        ["TASK", "DEFINITION", "STATUS", "NODE", "AGE", "PORTS"],
        (
            [
                short_id(task["id"]),
                task["taskDefinition"],
                status_text(task),
                task["hostname"] or "-",
                age(now - (task["startedAt"] or task["createdAt"])),
                ports(task) or "-",
            ]
            for task in tasks
        ),
    )


# ---------------------------------------------------------------- scaling


@click.command(cls=Command, short_help="Change how many tasks a service has.")
@click.argument("name")
@click.argument("count", type=click.IntRange(min=0))
@service_option
@click.option("--wait", is_flag=True, help="Wait until it has that many, all of them running.")
@click.option("--timeout", type=DURATION, default="10m", show_default=True, help="How long --wait waits.")
@target_options
@json_option
def scale(
    name: str, count: int, cluster: str | None, wait: bool, timeout: float, target: Target, as_json: bool
) -> None:
    """Change how many tasks the service NAME has."""
    client = target.client()
    found = find_service(client, name, cluster)
    client.ecs("update_service", cluster=found["cluster"], service=found["name"], desiredCount=count)
    if wait:
        _wait_for_count(client, found["serviceArn"], count, timeout)
    scaled = find_service(client, found["serviceArn"], None)
    if as_json:
        print_json(scaled)
    else:
        click.echo(
            f"{scaled['name']}: {scaled['desired']} desired ({found['desired']} before), {scaled['running']} running, "
            f"{scaled['pending']} pending"
        )


def _wait_for_count(client: "Client", arn: str, count: int, timeout_s: float) -> None:
    from homeport.cli.lookup import progress

    deadline = time.monotonic() + timeout_s
    with progress("scaling") as show:
        while True:
            found = find_service(client, arn, None)
            if found["running"] == count and not found["pending"]:
                return
            last = found["lastEvent"]
            show(f"{found['running']} of {count} run" + (f": {event_text(last)}" if last else ""))
            if time.monotonic() > deadline:
                raise CliError(
                    f"After {timeout_s:g} s {found['running']} of {count} tasks of {found['name']} run.",
                    hint=f"What keeps them: homeport service {found['name']}",
                )
            time.sleep(_POLL_S)
