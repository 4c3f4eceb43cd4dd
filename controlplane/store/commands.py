"""`homeport-controlplane backup` and `restore`: the store's files without a running control plane."""

import sys
from pathlib import Path

import click

from controlplane.store.backup import restore, write_backup
from homeport.daemon import EXIT_CONFIG
from homeport.datadir import ControlPlaneDir
from homeport.errors import ConfigurationError, JournalError

__all__ = ["backup_command", "restore_command"]

_data_dir = click.option(
    "--data-dir", type=click.Path(path_type=Path), envvar="HOMEPORT_DATA_DIR", default="/var/lib/homeport"
)
_force = click.option("--force", is_flag=True, help="Replace what is there.")


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_data_dir
@_force
def backup_command(file: Path, data_dir: Path, force: bool) -> None:
    """Write a backup of the control plane in the data directory, which may run meanwhile."""
    try:
        write_backup(ControlPlaneDir(data_dir), file, force=force)
    except (ConfigurationError, JournalError, OSError) as error:
        _refuse(error)


@click.command("restore")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_data_dir
@_force
def restore_command(file: Path, data_dir: Path, force: bool) -> None:
    """Put a backup in place. Nothing may run on the data directory; what was there is kept aside."""
    try:
        restore(file, data_dir, force=force)
    except (ConfigurationError, JournalError, OSError) as error:
        _refuse(error)


def _refuse(error: Exception) -> None:
    click.echo(f"homeport-controlplane: {error}", err=True)
    sys.exit(EXIT_CONFIG if isinstance(error, ConfigurationError) else 1)
