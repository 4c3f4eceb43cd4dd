"""`homeport deployment`: what a service's deployments do, how they end, and where their time goes."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import click

from homeport.cli.durations import DURATION
from homeport.cli.errors import CannotConnect, CliError, NotFound
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import moment, print_json, print_table, short_id
from homeport.cli.services import event_text, service_option

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["OVER", "deployment", "how", "timeout_option", "watch_option", "watch_until_over"]

_POLL_S: Final = 0.5
_PHASES: Final = ("schedule", "pull", "start", "healthy", "drain")
#: Statuses in which a deployment, its rollback included, is over.
OVER: Final = ("SUCCESSFUL", "STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED")
watch_option = click.option("--watch", is_flag=True, help="Wait until it has ended; exit code 1 unless successful.")
timeout_option = click.option(
    "--timeout", type=DURATION, default="30m", show_default=True, help="How long --watch waits."
)


@click.command(cls=Command, short_help="Show a service's deployments, and where their time went.")
@click.argument("name")
@service_option
@watch_option
@timeout_option
@target_options
@json_option
def deployment(name: str, cluster: str | None, watch: bool, timeout: float, target: Target, as_json: bool) -> None:
    """Show what the last deployments of the service NAME did, and where the time of the latest went.

    Per phase: schedule (finding a host), pull, start, healthy (until it counts as such), and drain (stopping what was
    replaced). With --watch a pipeline can wait for the end, and has its exit code.
    """
    client = target.client()
    answer = client.own("DescribeDeployments", service=name, cluster=cluster)
    if not answer["deployments"]:
        raise NotFound(f"The service {answer['service']['name']} has had no deployment yet.")
    if watch:
        # A rollback is told by the deployment that it undoes.
        first = next((each for each in answer["deployments"] if not each["rollbackOf"]), answer["deployments"][0])
        watch_until_over(client, answer["service"], first["id"], timeout, as_json=as_json)
    elif as_json:
        print_json(answer)
    else:
        _show(answer["service"], answer["deployments"])


def watch_until_over(
    client: "Client", service: dict[str, Any], deployment_id: str, timeout_s: float, *, as_json: bool
) -> None:
    """Wait for a deployment's end, telling the events meanwhile; then show it.

    A control plane that is restarted meanwhile is waited for. Raises CliError unless the deployment succeeds in time.
    """
    answer = _wait(client, service, deployment_id, timeout_s, quiet=as_json)
    if as_json:
        print_json(answer)
    else:
        click.echo()
        _show(answer["service"], answer["deployments"])
    ended = answer["deployments"][0]
    if ended["status"] != "SUCCESSFUL":
        reason = ended["statusReason"] or ended["rolloutStateReason"] or "no reason is known"
        raise CliError(
            f"The deployment of {service['name']} ended {ended['status']}: {reason}",
            hint=f"What happened: homeport service {service['name']} --all",
        )


def _wait(
    client: "Client", service: dict[str, Any], deployment_id: str, timeout_s: float, *, quiet: bool
) -> dict[str, Any]:
    """Return the answer that tells the deployment's end."""
    from homeport.cli.lookup import progress

    deadline = time.monotonic() + timeout_s
    told = 0
    with progress("deploying") as show:
        while True:
            try:
                answer = client.own("DescribeDeployments", service=service["serviceArn"], deployment=deployment_id)
            except CannotConnect:
                if time.monotonic() > deadline:
                    raise
                show("the control plane can't be reached")
            else:
                told = _tell_events(answer, told, quiet=quiet)
                found = answer["deployments"][0]
                if found["status"] in OVER:
                    return answer
                show(f"{found['status']}: {found['healthyTasks']} tasks have become healthy")
                if time.monotonic() > deadline:
                    raise CliError(
                        f"After {timeout_s:g} s the deployment of {service['name']} is still {found['status']}.",
                        hint=f"What it waits for: homeport service {service['name']}",
                    )
            time.sleep(_POLL_S)


def _tell_events(answer: dict[str, Any], told: int, *, quiet: bool) -> int:
    """Print the deployment's events behind number `told`; return the number of the last one."""
    began_at = answer["deployments"][0]["createdAt"]
    for event in answer["events"]:
        if event["number"] > told and event["at"] >= began_at and not quiet:
            click.echo(f"{moment(event['at'])}  {event_text(event)}")
    return max((event["number"] for event in answer["events"]), default=told)


# ---------------------------------------------------------------- showing


def _show(service: dict[str, Any], deployments: list[dict[str, Any]]) -> None:
    latest, *earlier = deployments
    click.echo(
        f"service {service['name']} in {service['cluster']}: {service['state']}, {service['desired']} desired, "
        f"{service['running']} running, {service['pending']} pending"
    )
    kind = "rollback" if latest["rollbackOf"] else "deployment"
    click.echo(f"{kind} {latest['id']} of {latest['taskDefinition']}: {how(latest)}")
    click.echo(f"began {moment(latest['createdAt'])}, {latest['healthyTasks']} tasks have become healthy")
    if latest["lastFailure"] and latest["status"] != "SUCCESSFUL" and latest["lastFailure"] not in how(latest):
        click.echo(f"last failure: {latest['lastFailure']}")
    for hook in latest["hooks"]:
        if hook["status"] == "AWAITING_ACTION":
            click.echo(f"paused at {hook['stage']}. Let it go on:")
            arn = latest["serviceDeploymentArn"]
            click.echo(f"  aws ecs continue-service-deployment --service-deployment-arn {arn} --hook-id {hook['id']}")
    if latest["budget"]:
        click.echo()
        _print_budget(latest["budget"])
    if latest["tasks"]:
        click.echo()
        _print_tasks(latest["tasks"])
    if earlier:
        click.echo()
        _print_earlier(earlier)


def how(found: dict[str, Any]) -> str:
    """Say how far a deployment is, or how it ended, with its seconds and the reason."""
    tense = "after" if found["finishedAt"] is not None else "for"
    reason = found["statusReason"] or ("" if found["status"] == "SUCCESSFUL" else found["rolloutStateReason"])
    return f"{found['status']} {tense} {found['seconds']:.1f} s" + (f": {reason}" if reason else "")


def _print_budget(budget: dict[str, dict[str, Any]]) -> None:
    total = sum(times["totalS"] for times in budget.values())
    print_table(
        ["PHASE", "TASKS", "MEAN", "MAX", "TOTAL", "SHARE"],
        (
            [
                phase,
                times["count"],
                _seconds(times["meanS"]),
                _seconds(times["maxS"]),
                _seconds(times["totalS"]),
                f"{100 * times['totalS'] / total:.0f} %" if total else "-",
            ]
            for phase, times in _in_order(budget)
        ),
    )


def _in_order(budget: dict[str, dict[str, Any]]) -> Iterable[tuple[str, dict[str, Any]]]:
    # A newer control plane may know more phases.
    names = [*(phase for phase in _PHASES if phase in budget), *(phase for phase in budget if phase not in _PHASES)]
    return ((name, budget[name]) for name in names)


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"


def _print_tasks(tasks: list[dict[str, Any]]) -> None:
    # Only what was replaced itself has been drained.
    phases = [phase for phase in _PHASES if phase != "drain" or any(phase in task["phases"] for task in tasks)]
    print_table(
        ["TASK", "NODE", "STATUS", *(phase.upper() for phase in phases), "REASON"],
        (
            [
                short_id(task["id"]),
                task["hostname"] or "-",
                _task_status(task),
                *(_seconds(task["phases"].get(phase)) for phase in phases),
                task["stoppedReason"] or "",
            ]
            for task in tasks
        ),
    )


def _task_status(task: dict[str, Any]) -> str:
    if task["lost"]:
        return "unknown (its host is silent)"
    if task["lastStatus"] == "RUNNING" and task["healthy"]:
        return "RUNNING (healthy)"
    if task["desiredStatus"] == "PENDING":
        return f"{task['lastStatus']} (prepared)"
    return str(task["lastStatus"])


def _print_earlier(earlier: list[dict[str, Any]]) -> None:
    print_table(
        ["EARLIER", "DEFINITION", "BEGAN", "SECONDS", "STATUS", "REASON"],
        (
            [
                each["id"],
                each["taskDefinition"] or "-",
                moment(each["createdAt"]),
                f"{each['seconds']:.1f}",
                f"{each['status']} (rollback)" if each["rollbackOf"] else each["status"],
                each["statusReason"] or "",
            ]
            for each in earlier
        ),
    )
