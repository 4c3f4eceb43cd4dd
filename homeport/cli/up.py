"""`homeport up`: a control plane and an agent on this machine, in the foreground, in one command."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from homeport.cli.dockercheck import DEFAULT_DOCKER_HOST, why_no_docker
from homeport.cli.errors import EXIT_CONFIG, CliError, Unusable
from homeport.cli.options import Command
from homeport.cli.output import say
from homeport.cli.settings import UpSettings, read_config_file

__all__ = ["up"]


@click.command(cls=Command, short_help="Start Homeport on this machine.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    default=".homeport",
    envvar="HOMEPORT_DATA_DIR",
    show_default=True,
    show_envvar=True,
    help="Where everything is kept.",
)
@click.option(
    "--listen",
    multiple=True,
    metavar="HOST:PORT",
    envvar="HOMEPORT_LISTEN",
    show_envvar=True,
    help="Listen here only; http on a loopback address, else https. May be repeated. "
    "[default: http://127.0.0.1:6180 for this machine, https://0.0.0.0:6181 for other hosts]",
)
@click.option("--insecure-http", is_flag=True, help="Plain http on addresses of --listen that other hosts reach, too.")
@click.option(
    "--advertise",
    metavar="HOST",
    envvar="HOMEPORT_ADVERTISE",
    show_envvar=True,
    help="Name or address by which other hosts reach this machine.",
)
@click.option("--no-agent", is_flag=True, help="Run the control plane alone; containers run on other hosts.")
@click.option(
    "--docker-host",
    metavar="URL",
    envvar="DOCKER_HOST",
    default=DEFAULT_DOCKER_HOST,
    show_default=True,
    show_envvar=True,
    help="The Docker Engine to run containers on.",
)
@click.option("--region", metavar="NAME", envvar="HOMEPORT_REGION", show_envvar=True, help="Region in ARNs.")
@click.option(
    "--account", metavar="ID", envvar="HOMEPORT_ACCOUNT_ID", show_envvar=True, help="12-digit account in ARNs."
)
@click.option(
    "--access-key-id", metavar="ID", envvar="HOMEPORT_ACCESS_KEY_ID", show_envvar=True, help="First access key."
)
@click.option(
    "--secret-access-key", metavar="KEY", envvar="HOMEPORT_SECRET_ACCESS_KEY", show_envvar=True, help="Its secret."
)
@click.option("--sample", is_flag=True, help="Also run a small web container, and show what to try with it.")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=read_config_file,
    help="TOML file with these settings (flags and environment win).",
)
def up(data_dir: Path, listen: tuple[str, ...], no_agent: bool, **options: Any) -> None:
    """Start Homeport on this machine: control plane and agent, until Ctrl-C.

    When everything is up, one line says so on standard output: `homeport ready: URL (data dir DIR)`. A daemon that
    dies is started again. Stopping this command leaves your containers running; the next `homeport up` takes them
    over. On a terminal the daemons' logs go to DIR/controlplane.log and DIR/agent.log, else to standard error.
    """
    settings = UpSettings(
        data_dir=data_dir.absolute(), listen=tuple(listen), agent=not no_agent, quiet=sys.stderr.isatty(), **options
    )
    if (settings.access_key_id is None) != (settings.secret_access_key is None):
        raise Unusable("--access-key-id and --secret-access-key belong together: give both or neither.")
    run_installation(settings)


def run_installation(settings: UpSettings) -> None:
    """Run an installation until SIGINT or SIGTERM. Raises CliError if it can't start or go on."""
    from homeport.cli.supervisor import ChildFailed
    from homeport.daemon import run_until_signalled

    failures: list[CliError] = []
    try:
        asyncio.run(run_until_signalled(lambda: _up(settings)))
    except* ChildFailed as group:
        failures += [_failure(error) for error in _leaves(group) if isinstance(error, ChildFailed)]
    except* CliError as group:
        failures += [error for error in _leaves(group) if isinstance(error, CliError)]
    if failures:
        raise failures[0]
    if settings.agent:
        say("homeport: stopped. Containers go on running; `homeport up` with the same data directory takes them over.")
    else:
        say("homeport: stopped.")


async def _up(settings: UpSettings) -> None:
    from homeport.cli.installation import Installation
    from homeport.cli.sample import show_sample
    from homeport.clock import SystemClock

    if settings.agent and (problem := await why_no_docker(settings.docker_host)):
        raise CliError(
            problem,
            hint="Start Docker (systemctl start docker), name another Engine with --docker-host, "
            "or leave the agent out with --no-agent.",
        )

    def announce(text: str) -> None:
        say(f"homeport: {text}")

    installation = Installation(settings, say=announce, clock=SystemClock())
    async with asyncio.TaskGroup() as group:
        endpoint = await installation.start(group)
        click.echo(f"homeport ready: {endpoint.local_url} (data dir {settings.data_dir})")
        if settings.sample:
            await show_sample(settings, installation, say=announce)


def _failure(error: Exception) -> CliError:
    from homeport.cli.supervisor import ChildFailed

    assert isinstance(error, ChildFailed)
    kind = Unusable if error.exit_code == EXIT_CONFIG else CliError
    # Daemons say why they can't start in one line of plain text behind their name.
    reason = error.last_words.partition(": ")[2] if error.last_words.startswith("homeport-") else error.last_words
    if reason:
        return kind(f"{error.name[0].upper()}{error.name[1:]} can't run: {reason}")
    return kind(f"{error}; what it said is above.")


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
