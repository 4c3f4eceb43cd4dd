"""`homeport logs`: what the containers of a task, or of a service's tasks, wrote."""

import re
from typing import TYPE_CHECKING, Any, Final

import click

from homeport.cli.durations import MOMENT
from homeport.cli.errors import CliError, NotFound
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import say, short_id

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["logs", "show_log"]

#: Digits of a task's id that are taken for one even though a service has that name.
_SURE_DIGITS: Final = 8
_TASK: Final = re.compile(r"[0-9a-f]{1,32}")


@click.command(cls=Command, short_help="Show what a task's or a service's containers wrote.")
@click.argument("subject", metavar="SERVICE|TASK")
@click.argument("container", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on showing what comes, until the containers end or Ctrl-C.")
@click.option("-n", "--tail", type=click.IntRange(0), metavar="LINES", help="Only the last lines, of all together.")
@click.option("--since", type=MOMENT, help="Only what is newer: 10m, or 2026-01-31T12:00.")
@click.option("--until", type=MOMENT, help="Only what is older: 5m, or 2026-01-31T12:30.")
@click.option("--grep", metavar="PATTERN", help="Only lines that match a regular expression (RE2; (?i) ignores case).")
@click.option("--stdout", "stream", flag_value="stdout", help="Only standard output.")
@click.option("--stderr", "stream", flag_value="stderr", help="Only standard error.")
@click.option("-a", "--all", "everything", is_flag=True, help="Of a service, also the tasks that have stopped.")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was written.")
@click.option("--no-prefix", is_flag=True, help="Don't say which container of which task each line is of.")
@click.option("--cluster", metavar="NAME", help="The service's cluster; needed only if several have one of that name.")
@target_options
@json_option
def logs(
    subject: str,
    container: str | None,
    follow: bool,
    tail: int | None,
    since: float | None,
    until: float | None,
    grep: str | None,
    stream: str | None,
    everything: bool,
    timestamps: bool,
    no_prefix: bool,
    cluster: str | None,
    target: Target,
    as_json: bool,
) -> None:
    """Show the logs of a service's tasks (NAME, CLUSTER/NAME or ARN), or of a task (the beginning of its id, or ARN).

    Of a service those of the tasks that haven't stopped; with --all, --since or -n, also of those that have. What
    was written to standard error goes to standard error.
    """
    from homeport.cli.loglines import Printer
    from homeport.cli.logstream import stream_logs

    if follow and until is not None:
        raise click.UsageError("--until can't be used with --follow: what is to come has no end.")
    client = target.client()
    whose, several = _find(client, subject, cluster)
    query = {
        **whose,
        "container": container,
        "follow": "true" if follow else None,
        "tail": None if tail is None else str(tail),
        "since": None if since is None else repr(since),
        "until": None if until is None else repr(until),
        "grep": grep,
        "stream": stream,
        "all": "true" if everything else None,
    }
    prefix = several and not (no_prefix or ("task" in whose and container is not None))
    printer = Printer(prefix=prefix, timestamps=timestamps, as_json=as_json)
    try:
        stream_logs(client, {name: value for name, value in query.items() if value}, printer, follow=follow)
    except CliError as error:
        if error.code != "LogUnavailable":
            raise
        # Nothing is there to be shown, so what happened is the next best.
        raise NotFound(error.message, hint=f"What is known: homeport story {subject}") from error


def show_log(client: "Client", task_id: str, container: str, *, follow: bool = False, tail: int | None = None) -> None:
    """Print a container's log until it ends. Raises CliError if it breaks off."""
    from homeport.cli.loglines import Printer
    from homeport.cli.logstream import stream_logs

    query = {"task": task_id, "container": container}
    if follow:
        query["follow"] = "true"
    if tail is not None:
        query["tail"] = str(tail)
    stream_logs(client, query, Printer(), follow=follow)


def _find(client: "Client", reference: str, cluster: str | None) -> tuple[dict[str, str], bool]:
    """Return how to ask for the logs that `reference` means, and whether they may be of several containers.

    A service's name may be the beginning of a task's id: then it is the service, unless so many digits are no chance.
    Raises NotFound, or CliError if it could be several.
    """
    from homeport.cli.lookup import find_task

    sure = re.search(r"^arn:[^/]*:task/", reference) is not None
    service = None if sure else _service(client, reference, cluster)
    task = None
    if service is None or _TASK.fullmatch(reference):
        task = _task(client, reference) if service is not None else find_task(client, reference)
    if service is not None and task is not None:
        other = f"{service['cluster']}/{service['name']}"
        if len(reference) >= _SURE_DIGITS:
            say(f"homeport: this is the task {reference}; the service of that name: homeport logs {other}")
            service = None
        else:
            say(f"homeport: this is the service {other}; the task: homeport logs {short_id(task['id'])}")
    if service is not None:
        return {"service": str(service["serviceArn"])}, True
    assert task is not None
    return {"task": str(task["id"])}, len(task["containers"]) > 1


def _service(client: "Client", reference: str, cluster: str | None) -> dict[str, Any] | None:
    from homeport.cli.services import find_service

    try:
        return find_service(client, reference, cluster)
    except NotFound as error:
        if _TASK.fullmatch(reference):
            return None
        if cluster is not None or reference.startswith("arn:"):
            raise
        raise NotFound(
            f"There is no service {reference}, and no task's id begins like that.",
            hint="`homeport services` lists the services, `homeport ps -a` the tasks.",
        ) from error


def _task(client: "Client", reference: str) -> dict[str, Any] | None:
    """Return the only task whose id begins with `reference`, or None."""
    from homeport.cli.lookup import find_task

    try:
        return find_task(client, reference)
    except CliError:
        return None
