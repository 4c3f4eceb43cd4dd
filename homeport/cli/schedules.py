"""`homeport schedules` and `homeport schedule NAME`: when schedules and rules run tasks next, and how it went."""

import time
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click

from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import age, moment, print_json, print_table, say, short_id

__all__ = ["schedule", "schedules"]


@click.command(cls=Command, short_help="List schedules and rules: when they run next, how they last went.")
@target_options
@json_option
def schedules(target: Target, as_json: bool) -> None:
    """List the schedules of EventBridge Scheduler and the rules of EventBridge that run tasks here."""
    from homeport.cli.lookup import all_pages

    listed = all_pages(target.client(), "DescribeSchedules", "schedules")
    if as_json:
        print_json(listed)
    elif listed:
        _print(listed)
    else:
        say("There are no schedules.")
        say("  `aws scheduler create-schedule` makes one, `aws events put-rule` and `put-targets` a rule.")


def _print(listed: list[dict[str, Any]]) -> None:
    now = time.time()
    print_table(
        ["SCHEDULE", "STATE", "WHEN", "NEXT", "LAST DUE", "LAST OUTCOME"],
        (
            [
                each["id"].removeprefix("schedule/"),
                each["state"],
                _when(each),
                "-" if each["nextAt"] is None else f"in {age(each['nextAt'] - now)}",
                "-" if each["lastRun"] is None else f"{age(now - each['lastRun']['dueAt'])} ago",
                "-" if each["lastRun"] is None else _outcome(each["lastRun"]),
            ]
            for each in listed
        ),
    )


@click.command(cls=Command, short_help="Show a schedule or rule: its next times and its history.")
@click.argument("name")
@target_options
@json_option
def schedule(name: str, target: Target, as_json: bool) -> None:
    """Show a schedule or rule, its next times in its own zone, and its last 100 runs.

    NAME: its name, GROUP/NAME, rule/NAME or its ARN.
    """
    answer = target.client().own("DescribeSchedule", schedule=name)
    if as_json:
        print_json(answer)
        return
    if answer["schedule"] is None:
        click.echo(f"{answer['id']}: completed, and deleted by its ActionAfterCompletion")
    else:
        _show(answer)
    click.echo()
    if answer["runs"]:
        _print_runs(answer["runs"])
    else:
        say("It has not run yet.")


def _show(answer: dict[str, Any]) -> None:
    found = answer["schedule"]
    click.echo(f"{found['id']}  {_when(found)}  {found['state']}")
    if found["description"]:
        click.echo(found["description"])
    for each in answer["targets"]:
        name = f"{each['id']}: " if each["id"] else ""
        count = f"{each['count']} x " if each["count"] > 1 else ""
        click.echo(
            f"{'target:':10} {name}{count}{each['taskDefinition']} in {each['cluster']}; overlap {each['overlap']},"
            f" missed {each['missed']}, up to {each['maxRetries']} retries in {age(each['maxAgeS'])}"
        )
    others = found["targets"] - len(answer["targets"])
    if others:
        what = "target gets" if others == 1 else "targets get"
        click.echo(f"{'target:':10} {others} {what} events: see `homeport webhooks ls`")
    elif not answer["targets"]:
        click.echo(f"{'target:':10} none: nothing runs")
    for label, value in (("starts", found["startAt"]), ("ends", found["endAt"])):
        if value is not None:
            click.echo(f"{label + ':':10} {_local(value, found['timezone'])}")
    for number, each in enumerate(answer["next"]):
        window = f", in its window at {_local(each['runsAt'], found['timezone'])}" if found["windowMinutes"] else ""
        click.echo(f"{'' if number else 'next:':10} {_local(each['dueAt'], found['timezone'])}{window}")
    if not answer["next"]:
        click.echo(f"{'next:':10} never")


def _print_runs(runs: list[dict[str, Any]]) -> None:
    targets = any(run["targetId"] for run in runs)
    columns = ["DUE", "RUN", "OUTCOME", "TASKS", "WHY"]
    print_table(
        [*columns[:1], "TARGET", *columns[1:]] if targets else columns,
        (
            [
                moment(run["dueAt"]),
                *([run["targetId"] or "-"] if targets else ()),
                "-" if run["begunAt"] is None else moment(run["begunAt"]),
                _outcome(run),
                ", ".join(map(_task, run["tasks"])) or "-",
                run["reason"] or "-",
            ]
            for run in runs
        ),
    )


def _task(task: dict[str, Any]) -> str:
    """A task with what became of it: `0123456789ab RUNNING`, `0123456789ab exit 1`."""
    status = task["lastStatus"] or ""
    if status == "STOPPED" and task["exitCode"] is not None:
        status = f"exit {task['exitCode']}"
    return f"{short_id(task['id'])} {status}".strip()


def _outcome(run: dict[str, Any]) -> str:
    return f"{run['outcome']} ({run['count']})" if run["count"] > 1 else str(run["outcome"])


def _when(found: dict[str, Any]) -> str:
    zone = "" if found["timezone"] == "UTC" else f" {found['timezone']}"
    window = f" +{found['windowMinutes']:g}m" if found["windowMinutes"] else ""
    return f"{found['expression'] or 'on events'}{zone}{window}"


def _local(epoch_s: float, zone: str) -> str:
    """A time in a schedule's own zone: `Mon 2026-01-31 12:00:00 CET`."""
    try:
        local = datetime.fromtimestamp(epoch_s, ZoneInfo(zone))
    except (KeyError, OSError):  # this machine doesn't know the zone
        local = datetime.fromtimestamp(epoch_s, UTC)
    return local.strftime("%a %Y-%m-%d %H:%M:%S %Z")
