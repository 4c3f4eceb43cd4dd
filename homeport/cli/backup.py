"""`homeport backup` and `homeport restore`: an installation's state, key and CA in one file."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from homeport.cli.errors import EXIT_CONFIG, CannotConnect, CliError, Unusable
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import print_json, say

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["backup", "restore"]

_PATH: Final = "/homeport/v1/backup"


@click.command(cls=Command, short_help="Write a backup of the control plane.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@target_options
@json_option
def backup(file: Path, force: bool, target: Target, as_json: bool) -> None:
    """Write a backup of the control plane to FILE, while it runs.

    It holds the state with all stories, the access key and the CA: keep it as secret as a password. Containers and
    hosts aren't in it. A control plane of this machine that is stopped is backed up from its data directory.
    """
    if file.exists() and not force:
        raise CliError(f"{file} exists already.", hint="Choose another name, or overwrite it with --force.")
    client = target.client()
    try:
        _download(client, file, force=force)
    except CannotConnect:
        data_dir = client.connection.data_dir
        if data_dir is None:
            raise
        say(f"The control plane doesn't run; reading {data_dir} itself.")
        _controlplane("backup", str(file.absolute()), "--data-dir", str(data_dir), *(("--force",) if force else ()))
    size = file.stat().st_size
    if as_json:
        print_json({"file": str(file.absolute()), "bytes": size})
    else:
        click.echo(f"Wrote {file} ({size // 1024} KiB). It holds secrets: keep it safe.")
        click.echo(f"To bring it back: homeport restore {file} --data-dir DIR")


def _download(client: "Client", file: Path, *, force: bool) -> None:
    """Put the backup in `file` wholly or not at all, mode 0600."""
    descriptor, name = tempfile.mkstemp(dir=file.absolute().parent, prefix=f".{file.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as out:
            for piece in client.download(_PATH):
                out.write(piece)
            out.flush()
            os.fsync(descriptor)
        if force:
            temporary.replace(file)
        else:
            # Unlike a rename this never replaces a file that has come meanwhile.
            os.link(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


@click.command(cls=Command, short_help="Bring a backup back.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    envvar="HOMEPORT_DATA_DIR",
    show_envvar=True,
    required=True,
    help="Where the control plane is to be restored.",
)
@click.option("--force", is_flag=True, help="Replace the control plane that is there; it is kept aside.")
def restore(file: Path, data_dir: Path, force: bool) -> None:
    """Put a backup in place as the control plane of DIR. None may be running there.

    The restored control plane knows what the backup knows: hosts that joined later have to join again.
    """
    _controlplane(
        "restore", str(file.absolute()), "--data-dir", str(data_dir.absolute()), *(("--force",) if force else ())
    )
    click.echo(f"Restored {file} into {data_dir}. Start it: homeport up --data-dir {data_dir}")


def _controlplane(*arguments: str) -> None:
    """Run the control plane's own program, which alone knows its files. Raises CliError with what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.main", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return
    words = done.stderr.strip().splitlines() or [f"controlplane.main ended with status {done.returncode}"]
    text = words[-1].partition(": ")[2] if words[-1].startswith("homeport-controlplane:") else words[-1]
    raise (Unusable if done.returncode == EXIT_CONFIG else CliError)(f"{text[:1].upper()}{text[1:]}")
