"""Reading what a control plane leaves in its data directory for the command line: where it listens, and its key."""

from pathlib import Path
from typing import TypeVar

import msgspec

from homeport.cli.errors import CliError, NotFound
from homeport.datadir import ControlPlaneDir, CredentialsFile, EndpointFile

__all__ = ["read_credentials", "read_endpoint"]

T = TypeVar("T")


def read_endpoint(data_dir: Path) -> EndpointFile:
    """Return where the control plane of `data_dir` listens, or last listened.

    Raises NotFound if none has been started there, CliError if the file can't be read.
    """
    return _read(ControlPlaneDir(data_dir).endpoint, EndpointFile, data_dir)


def read_credentials(data_dir: Path) -> CredentialsFile:
    """Return the first access key of `data_dir`. Raises as `read_endpoint` does."""
    return _read(ControlPlaneDir(data_dir).credentials, CredentialsFile, data_dir)


def _read(path: Path, kind: type[T], data_dir: Path) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise NotFound(
            f"No control plane has been started in {data_dir} yet (there is no {path}).",
            hint=f"Start one: homeport up --data-dir {data_dir}",
        ) from None
    except PermissionError:
        raise CliError(
            f"You may not read {path}: it holds a secret and belongs to the user who runs the control plane.",
            hint="Run this as that user, or with sudo.",
        ) from None
    except msgspec.DecodeError as error:
        raise CliError(
            f"{path} is damaged: {error}", hint="Restart the control plane; it writes the file anew."
        ) from None
