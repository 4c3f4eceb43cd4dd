"""`homeport up --sample`: a service of one small web container to play with, and what to try next.

Doing it again finds what is there: the same definitions, and the service with its task.
"""

import asyncio
import os
import shlex
import shutil
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from homeport.cli.client import Client
from homeport.cli.errors import CliError
from homeport.cli.installation import Installation
from homeport.cli.output import short_id
from homeport.cli.ports import free_port, is_free
from homeport.cli.services import event_text
from homeport.cli.settings import UpSettings

__all__ = ["SAMPLE_IMAGE", "job_definition", "next_steps", "show_sample", "web_definition"]

SAMPLE_IMAGE: Final = "homeport/sample:1"
_WEB: Final = "sample-web"
_JOB: Final = "sample-job"
#: Where the service's output is kept: its definition names no log driver.
_LOGS: Final = f"/homeport/default/{_WEB}"
#: The first of these that is free becomes the sample's port, and stays it.
_PORTS: Final = range(8080, 8180)
_CONTAINER_PORT: Final = 8080
_START_TIMEOUT_S: Final = 120.0
_ANSWER_TIMEOUT_S: Final = 20.0
_POLL_S: Final = 0.2


def web_definition(host_port: int) -> dict[str, Any]:
    """Return the sample web container as RegisterTaskDefinition takes it.

    The host port is fixed, so that the URL stays whichever task answers it. There is no restart policy: the service
    replaces a task that ends.
    """
    return {
        "family": _WEB,
        "containerDefinitions": [
            {
                "name": "web",
                "image": SAMPLE_IMAGE,
                "essential": True,
                "cpu": 64,
                "memory": 64,
                "portMappings": [{"containerPort": _CONTAINER_PORT, "hostPort": host_port, "protocol": "tcp"}],
                "environment": [{"name": "GREETING", "value": "Hello"}],
                "healthCheck": {
                    "command": ["CMD-SHELL", f"wget -q -O /dev/null http://127.0.0.1:{_CONTAINER_PORT}/"],
                    "interval": 5,
                    "timeout": 3,
                    "retries": 3,
                },
                "stopTimeout": 5,
            }
        ],
    }


def job_definition() -> dict[str, Any]:
    """Return a task that counts to ten and ends, for trying RunTask: it takes no port, so any number can run."""
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo counting $i; sleep 1; done"
    container = {"name": "job", "image": SAMPLE_IMAGE, "essential": True, "cpu": 64, "memory": 32}
    return {"family": _JOB, "containerDefinitions": [{**container, "command": ["sh", "-c", script]}]}


async def show_sample(settings: UpSettings, installation: Installation, *, say: Callable[[str], None]) -> None:
    """Make the sample service unless there is one, wait until its task runs, and print what to try.

    A sample that doesn't start is told about, and stops nothing.
    """
    client = installation.client()
    try:
        await asyncio.to_thread(_ensure_service, client)
        task = await _running(client, say)
        await _answering(_url(task))
        say(f"sample: the service {_WEB} runs")
    except CliError as error:
        say(f"sample: {error.message}" + (f"\n  {error.hint}" if error.hint else ""))
        return
    for line in next_steps(
        task,
        homeport=_own_command(),
        aws=_command("aws"),
        data_dir=_shown(settings.data_dir),
        agent_pid=installation.agent.pid,
        control_plane_pid=installation.control_plane.pid,
    ):
        click.echo(line, err=True)


def _ensure_service(client: Client) -> None:
    """Register the definitions if they are missing, and make the service unless there is one that wants a task."""
    _registered(client, job_definition())
    (service,) = client.ecs("describe_services", services=[_WEB])["services"] or [None]
    if service is not None and service["status"] == "ACTIVE":
        if service["desiredCount"] == 0:
            client.ecs("update_service", service=_WEB, desiredCount=1)
        return
    newest = _newest(client, _WEB)
    port = newest["containerDefinitions"][0]["portMappings"][0]["hostPort"] if newest else None
    if port is None or not is_free(port):
        port = free_port(_PORTS)
    definition = _registered(client, web_definition(port))
    client.ecs(
        "create_service",
        serviceName=_WEB,
        taskDefinition=definition,
        desiredCount=1,
        # Whoever plays with it deploys something broken sooner or later.
        deploymentConfiguration={"deploymentCircuitBreaker": {"enable": True, "rollback": True}},
    )


def _newest(client: Client, family: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.ecs("describe_task_definition", taskDefinition=family)["taskDefinition"]
    except CliError as error:
        if error.code == "ClientException":
            return None
        raise
    return found


def _registered(client: Client, definition: dict[str, Any]) -> str:
    """Return the ARN of the family's newest revision if it says what `definition` says, else register it."""
    newest = _newest(client, definition["family"])
    (wanted,) = definition["containerDefinitions"]
    if newest is not None and _covers(newest["containerDefinitions"][0], wanted):
        return str(newest["taskDefinitionArn"])
    return str(client.ecs("register_task_definition", **definition)["taskDefinition"]["taskDefinitionArn"])


def _covers(found: Any, wanted: Any) -> bool:
    """Tell whether `found` has everything that `wanted` has; defaults that were filled in don't count."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_covers(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(_covers(one, other) for one, other in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)


async def _running(client: Client, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the service's task once it runs, and say what happens meanwhile. Raises CliError if it takes too long."""
    told: set[str] = set()

    def tell(event: dict[str, Any]) -> None:
        text = event_text(event)
        if text not in told:
            told.add(text)
            say(f"sample: {text}")

    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while True:
                answer = await asyncio.to_thread(lambda: client.own("DescribeService", service=_WEB))
                for task in answer["tasks"]:
                    if (task["desiredStatus"], task["lastStatus"]) == ("RUNNING", "RUNNING"):
                        return dict(task)
                for event in answer["events"]:
                    if event["at"] >= answer["service"]["createdAt"]:
                        tell(event)
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise CliError(
            f"The service {_WEB} has no running task yet after {_START_TIMEOUT_S:g} s.",
            hint=f"See why: {_own_command()} explain {_WEB}; the image {SAMPLE_IMAGE} is made by scripts/sample-image",
        ) from None


async def _answering(url: str) -> None:
    """Wait until the web server inside the container answers. Raises CliError if it doesn't."""
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            while True:
                if await asyncio.to_thread(_answers, url):
                    return
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise CliError(f"The container runs, but {url} doesn't answer after {_ANSWER_TIMEOUT_S:g} s.") from None


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _url(task: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{task['containers'][0]['ports'][0]['hostPort']}/"


# ---------------------------------------------------------------- what to try


def next_steps(
    task: dict[str, Any],
    *,
    homeport: str,
    aws: str | None,
    data_dir: str,
    agent_pid: int | None,
    control_plane_pid: int | None,
) -> list[str]:
    """Return the lines that tell a beginner what runs and what to try; each command works when it is pasted."""
    task_id = short_id(task["id"])
    container = task["containers"][0]
    url = _url(task)
    runtime_id = (container["runtimeId"] or "CONTAINER")[:12]
    place = "" if data_dir == ".homeport" else f" --data-dir {shlex.quote(data_dir)}"

    def step(command: str, what: str) -> str:
        return f"    {command:<68}  # {what}"

    no_aws = "" if aws else "   (the AWS CLI isn't installed here; Debian and Ubuntu: apt-get install awscli)"
    aws = aws or "aws"
    return [
        "",
        f"  A service of one web container runs: {url}",
        "",
        "  Try these in another terminal, in this directory:",
        "",
        step(f"curl {url}", "ask the container"),
        step(f"{homeport} services{place}", "what is kept running"),
        step(f"{homeport} ps{place}", "its task: what runs just now"),
        step(f"{homeport} nodes{place}", "where it can run: this machine"),
        step(f"{homeport} story {task_id}{place}", "what happened to the task, and why"),
        step(f"{homeport} logs {_WEB}{place}", "what the service's tasks write; -f goes on"),
        "",
        f"  With the AWS CLI:{no_aws}",
        "",
        step(f"{homeport} login --data-dir {shlex.quote(data_dir)}", "once: writes the AWS profile `homeport`"),
        step(f"AWS_PROFILE=homeport {aws} ecs list-clusters", "the stock AWS CLI talks to this machine"),
        step(f"AWS_PROFILE=homeport {aws} ecs run-task --task-definition {_JOB}", "another container, for 10 seconds"),
        step(f"{homeport} ps -a{place}", "it stops by itself, with exit code 0"),
        step(f"AWS_PROFILE=homeport {aws} logs filter-log-events --log-group-name {_LOGS}", "logs as in CloudWatch"),
        "",
        "  Break things:",
        "",
        step(f"docker kill {runtime_id}", "another task takes its place"),
        step(f"{homeport} logs {_WEB} --since 1h{place}", "the dead one's last words are there, too"),
        step(f"{homeport} events{place}", "what happened, as EventBridge would tell it"),
        step(f"kill -9 {agent_pid or 'AGENT_PID'}", "the agent: containers run on, it is started again"),
        step(f"kill -9 {control_plane_pid or 'PID'}", "the control plane: nothing is forgotten"),
        "",
        f"  Add another machine: {homeport} add-node{place}",
        f"  Stop with Ctrl-C; containers run on, unless you stop them first: {homeport} scale {_WEB} 0{place}",
        "",
    ]


def _own_command() -> str:
    return _command("homeport") or "homeport"


def _command(name: str) -> str | None:
    """Return how a program can be called from the present directory, first the one installed beside this one.

    None if there is none.
    """
    beside = Path(sys.argv[0]).parent.absolute() / name
    found = shutil.which(name)
    if not os.access(beside, os.X_OK):
        return name if found else None
    return name if found and Path(found).resolve() == beside.resolve() else shlex.quote(_shown(beside))


def _shown(path: Path) -> str:
    """Return a path as one would type it here: relative if it is below the present directory."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
