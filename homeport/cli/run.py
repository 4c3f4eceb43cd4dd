"""`homeport run`: starts tasks, from a task definition or straight from an image."""

import math
import re
from typing import TYPE_CHECKING, Any, Final

import click

from homeport.cli.durations import DURATION
from homeport.cli.errors import CliError
from homeport.cli.options import Command, Target, cluster_option, json_option, target_options
from homeport.cli.output import print_json, say, short_id
from homeport.cli.ps import ports, status_text

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["one_off_definition", "overrides", "policy_tags", "run"]

#: What a container started from an image may use, unless --memory says otherwise. ECS wants a limit.
_DEFAULT_MEMORY_MIB: Final = 256


@click.command(cls=Command, short_help="Run a task from a definition or an image.")
@click.argument("what", metavar="TASKDEF|IMAGE")
@click.argument("command", nargs=-1, metavar="[-- COMMAND...]")
@cluster_option
@click.option("--count", type=click.IntRange(1, 10), default=1, show_default=True, help="How many tasks.")
@click.option(
    "-e", "--env", "environment", multiple=True, metavar="NAME=VALUE", help="Set a variable. May be repeated."
)
@click.option("-p", "--publish", multiple=True, metavar="[HOST:]CONTAINER", help="Publish a port (of an image only).")
@click.option("--cpu", type=click.IntRange(1), metavar="UNITS", help="CPU units, 1024 for a vCPU.")
@click.option("--memory", type=click.IntRange(6), metavar="MIB", help="Memory limit. [default for an image: 256]")
@click.option("--container", metavar="NAME", help="The container that COMMAND, -e, --cpu and --memory are for.")
@click.option("--image", "is_image", is_flag=True, help="Take the name as an image, even if a definition has it.")
@click.option("--wait", is_flag=True, help="Wait until the tasks run, or have stopped.")
@click.option("-f", "--follow", is_flag=True, help="Show the log until the task ends; exit with 1 if it failed.")
@click.option("--stop-after", type=DURATION, help="Stop a task that runs for longer, e.g. 10m (homeport:timeout).")
@click.option("--retries", type=click.IntRange(0, 10), help="Run a task that fails again, so often at most.")
@click.option("--exclusive", metavar="NAME", help="Run one task of this name at a time; the others wait their turn.")
@click.option(
    "--if-taken",
    type=click.Choice(["wait", "skip", "replace"]),
    help="With --exclusive: wait, don't start, or take the place of those before.",
)
@click.option(
    "--timeout", type=DURATION, default="10m", show_default=True, help="How long --wait and -f wait for a start."
)
@target_options
@json_option
def run(what: str, command: tuple[str, ...], cluster: str, target: Target, as_json: bool, **options: Any) -> None:
    """Run a task: TASKDEF is `family`, `family:revision` or an ARN; any other name is taken as an image.

    For an image a task definition with one container is registered under the family `run-IMAGE`.

    \b
    homeport run web:3 --count 2 --wait
    homeport run busybox -f -- sh -c 'echo hello; sleep 5'
    """
    client = target.client()
    if options["follow"] and (options["count"] != 1 or as_json):
        raise click.UsageError("--follow shows one log: it goes with neither --count nor --json.")
    variables = dict(_variable(text) for text in options["environment"])
    known = None if options["is_image"] else _definition(client, what)
    given = {"command": command, "environment": variables, "cpu": options["cpu"], "memory": options["memory"]}
    if known is None:
        definition = _register(client, one_off_definition(what, publish=options["publish"], **given))
        changes = None
    else:
        if options["publish"]:
            raise click.UsageError("--publish is for images; the ports of a task definition are in its portMappings.")
        definition = known["taskDefinitionArn"]
        changes = overrides(known["containerDefinitions"], container=options["container"], **given)
    started = _start(client, cluster, definition, options["count"], changes, policy_tags(**options))
    tasks = _show(client, started, options, as_json=as_json)
    if any(task["lastStatus"] == "STOPPED" and _failed(task) for task in tasks):
        raise click.exceptions.Exit(1)


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise click.BadParameter(f"'{text}' is not NAME=VALUE", param_hint="--env")
    return name, value


def _definition(client: "Client", reference: str) -> dict[str, Any] | None:
    """Return the task definition of this name, or None if there is none and it can be an image."""
    try:
        found: dict[str, Any] = client.ecs("describe_task_definition", taskDefinition=reference)["taskDefinition"]
    except CliError as error:
        # ECS's answer for a definition that doesn't exist.
        if error.code == "ClientException" and not reference.startswith("arn:"):
            return None
        raise
    return found if found["status"] == "ACTIVE" else None


def one_off_definition(
    image: str,
    *,
    command: tuple[str, ...],
    environment: dict[str, str],
    publish: tuple[str, ...],
    cpu: int | None,
    memory: int | None,
) -> dict[str, Any]:
    """Return the RegisterTaskDefinition request for one container of an image."""
    container: dict[str, Any] = {"name": "main", "image": image, "essential": True}
    container["memory"] = memory or _DEFAULT_MEMORY_MIB
    if cpu is not None:
        container["cpu"] = cpu
    if command:
        container["command"] = list(command)
    if environment:
        container["environment"] = [{"name": name, "value": value} for name, value in sorted(environment.items())]
    if publish:
        container["portMappings"] = [_port(text) for text in publish]
    return {"family": _family(image), "containerDefinitions": [container]}


def _family(image: str) -> str:
    name = image.rsplit("/", 1)[-1].partition("@")[0].partition(":")[0]
    return "run-" + (re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:200] or "image")


def _port(text: str) -> dict[str, Any]:
    match = re.fullmatch(r"(?:(\d{1,5}):)?(\d{1,5})(?:/(tcp|udp))?", text)
    if match is None:
        raise click.BadParameter(f"'{text}' is not [HOST:]CONTAINER[/tcp|udp], e.g. 8080:80", param_hint="--publish")
    host, container, protocol = match.groups()
    return {"hostPort": int(host or 0), "containerPort": int(container), "protocol": protocol or "tcp"}


def overrides(
    containers: list[dict[str, Any]],
    *,
    container: str | None,
    command: tuple[str, ...],
    environment: dict[str, str],
    cpu: int | None,
    memory: int | None,
) -> dict[str, Any] | None:
    """Return the `overrides` of RunTask for one container, or None if nothing is overridden.

    Without a name it is the only container, else the only essential one. Raises CliError if that isn't clear.
    """
    changes: dict[str, Any] = {}
    if command:
        changes["command"] = list(command)
    if environment:
        changes["environment"] = [{"name": name, "value": value} for name, value in environment.items()]
    if cpu is not None:
        changes["cpu"] = cpu
    if memory is not None:
        changes["memory"] = memory
    if not changes:
        return None
    if container is None:
        names = [each["name"] for each in containers]
        essential = [each["name"] for each in containers if each.get("essential", True)]
        candidates = essential if len(names) > 1 else names
        if len(candidates) != 1:
            raise CliError(
                f"The task definition has several containers: {', '.join(names)}.", hint="Name one with --container."
            )
        container = candidates[0]
    return {"containerOverrides": [{"name": container, **changes}]}


def _register(client: "Client", definition: dict[str, Any]) -> str:
    """Register a one-off definition, or take the family's newest revision if it says the same."""
    newest = _definition(client, definition["family"])
    if newest is not None:
        (wanted,) = definition["containerDefinitions"]
        found = newest["containerDefinitions"]
        optional = ("cpu", "command", "environment", "portMappings")
        if len(found) == 1 and all(
            (found[0].get(key) or None) == (wanted.get(key) or None) for key in (*wanted, *optional)
        ):
            return str(newest["taskDefinitionArn"])
    return str(client.ecs("register_task_definition", **definition)["taskDefinition"]["taskDefinitionArn"])


def policy_tags(
    *,
    stop_after: float | None = None,
    retries: int | None = None,
    exclusive: str | None = None,
    if_taken: str | None = None,
    **_: object,
) -> list[dict[str, str]]:
    """Return the tags that make the control plane stop, retry or hold back tasks, as the options say."""
    if if_taken is not None and exclusive is None:
        raise click.UsageError("--if-taken says what to do when a name is taken: it needs --exclusive.")
    values = {
        "homeport:timeout": None if stop_after is None else str(math.ceil(stop_after)),
        "homeport:retries": None if retries is None else str(retries),
        "homeport:exclusive": exclusive,
        "homeport:exclusive-policy": if_taken,
    }
    return [{"key": key, "value": value} for key, value in values.items() if value is not None]


def _start(
    client: "Client",
    cluster: str,
    definition: str,
    count: int,
    changes: dict[str, Any] | None,
    tags: list[dict[str, str]],
) -> list[dict[str, Any]]:
    answer = client.ecs(
        "run_task",
        cluster=cluster,
        taskDefinition=definition,
        count=count,
        overrides=changes,
        startedBy="homeport-run",
        tags=tags or None,
    )
    started: list[dict[str, Any]] = answer["tasks"]
    for failure in answer["failures"]:
        say(f"homeport: not placed: {failure.get('reason', '')} {failure.get('detail') or ''}".rstrip())
    if not started:
        raise CliError("No task was started.", hint="`homeport nodes` shows what the hosts have left.")
    return started


def _show(
    client: "Client", started: list[dict[str, Any]], options: dict[str, Any], *, as_json: bool
) -> list[dict[str, Any]]:
    from homeport.cli.lookup import find_task, wait_for_task

    tasks = []
    for each in started:
        task_id = each["taskArn"].rsplit("/", 1)[-1]
        if options["wait"] or options["follow"]:
            task = wait_for_task(client, task_id, "RUNNING", timeout_s=options["timeout"])
        else:
            task = find_task(client, task_id)
        if options["follow"] and task["node"] is not None and task["startedAt"] is not None:
            name = options["container"] or task["containers"][0]["name"]
            _follow(client, task_id, name)
            task = wait_for_task(client, task_id, "STOPPED", timeout_s=options["timeout"])
        tasks.append(task)
        if options["follow"]:
            say(_line(task))
        elif not as_json:
            click.echo(_line(task))
    if as_json:
        print_json(tasks)
    return tasks


def _follow(client: "Client", task_id: str, container: str) -> None:
    from homeport.cli.logs import show_log

    try:
        show_log(client, task_id, container, follow=True)
    except KeyboardInterrupt:
        say(f"homeport: the task goes on; stop it: homeport stop {short_id(task_id)}")
        raise


def _line(task: dict[str, Any]) -> str:
    where = f" on {task['hostname']}" if task["hostname"] else ""
    published = f"  {ports(task)}" if ports(task) else ""
    reason = f"  {task['stoppedReason']}" if task["stoppedReason"] else ""
    return f"{short_id(task['id'])} {task['taskDefinition']}{where}: {status_text(task)}{published}{reason}"


def _failed(task: dict[str, Any]) -> bool:
    codes = [container["exitCode"] for container in task["containers"]]
    return task["stopCode"] == "TaskFailedToStart" or any(code != 0 for code in codes)
