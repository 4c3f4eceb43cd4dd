"""`homeport-agent`: reads flags, environment and the config file, and joins a host or runs the daemon."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from agent.config import (
    DEFAULT_MEMORY_RESERVE_MIB,
    DEFAULT_METRICS_LISTEN,
    AgentConfig,
    default_data_dir,
    parse_address,
    parse_attributes,
    parse_ports,
)
from agent.identity import JoinError, join
from agent.retention import DEFAULT_CLEANUP_AFTER_S
from agent.service import facts_for_joining, serve
from homeport import __version__
from homeport.daemon import EXIT_CONFIG, config_option, configure_logging, run_daemon
from homeport.datadir import AgentDir
from homeport.errors import ConfigurationError

__all__ = ["main"]


_data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    envvar="HOMEPORT_DATA_DIR",
    default=default_data_dir,
    show_default="/var/lib/homeport, or ~/.local/share/homeport if not root",
)
_docker_host_option = click.option(
    "--docker-host", envvar="DOCKER_HOST", help="unix://PATH or tcp://HOST:PORT.", show_default="Docker's usual socket"
)


@click.group()
@click.version_option(__version__, package_name="homeport")
def main() -> None:
    """Run containers on this host, as Homeport's control plane says."""


@main.command("join")
@config_option
@click.option("--server", required=True, metavar="URL", envvar="HOMEPORT_SERVER", help="The control plane.")
@click.option("--activation-id", required=True, envvar="HOMEPORT_ACTIVATION_ID")
@click.option("--activation-code", required=True, envvar="HOMEPORT_ACTIVATION_CODE")
@click.option("--ca-hash", envvar="HOMEPORT_CA_HASH", help="sha256:HEX of the control plane's CA: trust only that.")
@click.option("--cluster", default="", help="Cluster to join; else the activation's, else `default`.")
@click.option("--allow-plain-http", "--allow-insecure-http", is_flag=True, help="Plain http:// also to other machines.")
@_data_dir_option
@_docker_host_option
@click.option("--memory-reserve", type=click.IntRange(min=0), default=DEFAULT_MEMORY_RESERVE_MIB, hidden=True)
def join_command(**options: Any) -> None:
    """Make this machine a host of the control plane at URL. `homeport add-node` prints the whole command."""
    config = AgentConfig(
        data_dir=options["data_dir"], docker_host=options["docker_host"], memory_reserve_mib=options["memory_reserve"]
    )

    async def do_join() -> None:
        identity = await join(
            options["server"],
            options["activation_id"],
            options["activation_code"],
            options["ca_hash"],
            await facts_for_joining(config),
            AgentDir(config.data_dir),
            cluster=options["cluster"],
            allow_plain_http=options["allow_plain_http"],
        )
        click.echo(f"This host has joined cluster {identity.cluster} as {identity.instance_arn}")
        click.echo(f"Start its agent: homeport-agent run --data-dir {config.data_dir}")

    try:
        asyncio.run(do_join())
    except ConfigurationError as error:
        click.echo(f"homeport-agent: {error}", err=True)
        sys.exit(1 if isinstance(error, JoinError) else EXIT_CONFIG)


@main.command("run")
@config_option
@_data_dir_option
@_docker_host_option
@click.option(
    "--metrics-listen",
    default=DEFAULT_METRICS_LISTEN,
    show_default=True,
    metavar="HOST:PORT",
    envvar="HOMEPORT_METRICS_LISTEN",
    help="Where Prometheus reads metrics; `off` for nowhere.",
)
@click.option(
    "--memory-reserve",
    type=click.IntRange(min=0),
    default=DEFAULT_MEMORY_RESERVE_MIB,
    show_default=True,
    envvar="HOMEPORT_MEMORY_RESERVE",
    help="MiB of memory that tasks don't get.",
)
@click.option(
    "--cpu-reserve",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    envvar="HOMEPORT_CPU_RESERVE",
    help="CPU units (1,024 per core) that tasks don't get.",
)
@click.option(
    "--reserved-port", multiple=True, metavar="PORT[/udp]", envvar="HOMEPORT_RESERVED_PORTS", help="May be repeated."
)
@click.option("--attribute", multiple=True, metavar="NAME=VALUE", envvar="HOMEPORT_ATTRIBUTES", help="May be repeated.")
@click.option("--availability-zone", envvar="HOMEPORT_AVAILABILITY_ZONE", help="The host's ecs.availability-zone.")
@click.option(
    "--cleanup-after",
    type=click.FloatRange(min=0),
    default=DEFAULT_CLEANUP_AFTER_S,
    show_default=True,
    envvar="HOMEPORT_CLEANUP_AFTER",
    help="Seconds that containers of stopped tasks are kept, for their logs.",
)
@click.option(
    "--log-level", default="info", envvar="HOMEPORT_LOG_LEVEL", type=click.Choice(["debug", "info", "warning", "error"])
)
def run_command(**options: Any) -> None:
    """Run the agent until SIGTERM. Containers go on running; the next start takes them over."""
    configure_logging(options["log_level"])
    # On asyncio's own loop: an agent has little to do, and uvloop would take 3 MB and four threads for it.
    run_daemon("homeport-agent", lambda: serve(_config(options)))


def _config(options: dict[str, Any]) -> AgentConfig:
    return AgentConfig(
        data_dir=options["data_dir"],
        docker_host=options["docker_host"],
        metrics_listen=parse_address(options["metrics_listen"]),
        memory_reserve_mib=options["memory_reserve"],
        cpu_reserve_units=options["cpu_reserve"],
        reserved_ports=parse_ports(options["reserved_port"]),
        attributes=parse_attributes(options["attribute"]),
        availability_zone=options["availability_zone"],
        cleanup_after_s=options["cleanup_after"],
    )


if __name__ == "__main__":
    main()
