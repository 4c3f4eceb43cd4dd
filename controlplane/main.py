"""`homeport-controlplane`: reads flags, environment and the config file, and runs the daemon."""

from pathlib import Path
from typing import Any

import click
import uvloop

from controlplane.app import serve
from controlplane.config import (
    DEFAULT_LISTENERS,
    ControlPlaneConfig,
    check_access_key_id,
    check_account,
    check_region,
    parse_listener,
)
from controlplane.logs.space import DEFAULT_LIMIT_BYTES
from controlplane.store.commands import backup_command, restore_command
from homeport import __version__
from homeport.daemon import config_option, configure_logging, run_daemon
from homeport.errors import ConfigurationError

__all__ = ["main"]


@click.group()
@click.version_option(__version__, package_name="homeport")
def main() -> None:
    """Run Homeport's control plane."""


@main.command()
@config_option
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="HOMEPORT_DATA_DIR", default="/var/lib/homeport")
@click.option(
    "--listen", multiple=True, metavar="[SCHEME://]HOST:PORT", envvar="HOMEPORT_LISTEN", help="May be repeated."
)
@click.option("--insecure-http", is_flag=True, help="Plain HTTP also on addresses that aren't loopback.")
@click.option("--advertise", envvar="HOMEPORT_ADVERTISE", help="Name or address other hosts reach this machine by.")
@click.option("--region", envvar="HOMEPORT_REGION", help="Region in ARNs.")
@click.option("--account", envvar="HOMEPORT_ACCOUNT_ID", help="12-digit account id in ARNs.")
@click.option("--access-key-id", envvar="HOMEPORT_ACCESS_KEY_ID")
@click.option("--secret-access-key", envvar="HOMEPORT_SECRET_ACCESS_KEY")
@click.option("--heartbeat", type=click.FloatRange(0.1, 60), default=5.0, show_default=True, help="Seconds.")
@click.option("--history-days", type=click.FloatRange(min=0.01), default=30.0, show_default=True)
@click.option(
    "--stopped-task-retention", type=click.FloatRange(min=1), default=3600.0, show_default=True, help="Seconds."
)
@click.option(
    "--logs-url", envvar="HOMEPORT_LOGS_URL", metavar="URL", help="Where containers' output is kept, if not here."
)
@click.option(
    "--logs-limit",
    type=click.FloatRange(min=0.001),
    envvar="HOMEPORT_LOGS_LIMIT",
    default=DEFAULT_LIMIT_BYTES / 1024**3,
    show_default=True,
    help="GiB that containers' output may take here.",
)
@click.option(
    "--collect-logs/--no-collect-logs",
    envvar="HOMEPORT_COLLECT_LOGS",
    default=True,
    show_default=True,
    help="Keep the output of containers without a logConfiguration, too.",
)
@click.option(
    "--log-level", default="info", envvar="HOMEPORT_LOG_LEVEL", type=click.Choice(["debug", "info", "warning", "error"])
)
def run(**options: Any) -> None:
    """Serve the ECS API and the agents until SIGTERM."""
    configure_logging(options["log_level"])
    run_daemon("homeport-controlplane", lambda: serve(_config(options)), loop_factory=uvloop.new_event_loop)


def _config(options: dict[str, Any]) -> ControlPlaneConfig:
    key_id, secret = options["access_key_id"], options["secret_access_key"]
    if (key_id is None) != (secret is None):
        raise ConfigurationError("--access-key-id and --secret-access-key: give both or neither")
    if secret is not None and not 16 <= len(secret) <= 128:
        raise ConfigurationError("secret access key: expected 16 to 128 characters")
    return ControlPlaneConfig(
        data_dir=options["data_dir"],
        listeners=tuple(
            parse_listener(text, insecure_http=options["insecure_http"])
            for text in options["listen"] or DEFAULT_LISTENERS
        ),
        region=options["region"] and check_region(options["region"]),
        account=options["account"] and check_account(options["account"]),
        access_key_id=key_id and check_access_key_id(key_id),
        secret_access_key=secret,
        advertise_host=options["advertise"],
        heartbeat_s=options["heartbeat"],
        history_days=options["history_days"],
        stopped_task_retention_s=options["stopped_task_retention"],
        logs_url=options["logs_url"] or None,
        logs_limit_bytes=int(options["logs_limit"] * 1024**3),
        collect_logs=options["collect_logs"],
    )


main.add_command(backup_command)
main.add_command(restore_command)

if __name__ == "__main__":
    main()
