"""Where the control plane is and which key opens it: found among flags, environment, AWS profiles and data directories.

The first that applies wins:
  1. `--data-dir`                             the files that its control plane wrote
  2. `--profile`                              that AWS profile
  3. HOMEPORT_DATA_DIR                        as 1
  4. AWS_ENDPOINT_URL and the AWS keys        as `homeport env` prints them
  5. AWS_PROFILE, then the profile `homeport` if it has an endpoint_url (never Amazon's own endpoints)
  6. a data directory in a usual place        ./.homeport, /var/lib/homeport, ~/.local/share/homeport
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from homeport.cli.datafiles import read_credentials, read_endpoint
from homeport.cli.errors import CliError, NotFound
from homeport.datadir import ControlPlaneDir

__all__ = [
    "DEFAULT_PROFILE",
    "DEFAULT_REGION",
    "Connection",
    "default_data_dirs",
    "find_data_dir",
    "from_data_dir",
    "resolve",
]

DEFAULT_PROFILE: Final = "homeport"
#: Used for signing when nothing names a region: the control plane accepts any.
DEFAULT_REGION: Final = "us-east-1"

#: Name of an AWS profile -> its settings, {} if there is no such profile.
ProfileReader = Callable[[str], Mapping[str, Any]]


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """How to speak to a control plane. `source` says in words where that was found."""

    endpoint_url: str
    region: str
    access_key_id: str
    secret_access_key: str
    #: Path of a CA certificate to trust; None: the system's.
    ca_bundle: str | None = None
    source: str = ""
    #: The data directory, if that is where it was found.
    data_dir: Path | None = None


def default_data_dirs(*, cwd: Path, home: Path) -> tuple[Path, ...]:
    """Return the usual places of a data directory, nearest first."""
    return (cwd / ".homeport", Path("/var/lib/homeport"), home / ".local" / "share" / "homeport")


def find_data_dir(explicit: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the data directory asked for, else the first usual place where a control plane has run, else None."""
    if explicit is not None:
        return explicit
    if named := environ.get("HOMEPORT_DATA_DIR"):
        return Path(named)
    for candidate in default_data_dirs(cwd=Path.cwd(), home=Path.home()):
        if _readable(ControlPlaneDir(candidate).endpoint):
            return candidate
    return None


def from_data_dir(data_dir: Path) -> Connection:
    """Return the connection to the control plane of a data directory. Raises NotFound or CliError."""
    endpoint = read_endpoint(data_dir)
    credentials = read_credentials(data_dir)
    return Connection(
        endpoint_url=endpoint.local_url,
        region=endpoint.region,
        access_key_id=credentials.access_key_id,
        secret_access_key=credentials.secret_access_key,
        ca_bundle=endpoint.ca_bundle,
        source=f"data directory {data_dir}",
        data_dir=data_dir,
    )


def resolve(
    *, data_dir: Path | None, profile: str | None, environ: Mapping[str, str], read_profile: ProfileReader | None = None
) -> Connection:
    """Find the control plane in the order this module's docstring gives.

    Raises NotFound if nothing names one, CliError if what was asked for by name is incomplete or unreadable.
    """
    read = read_profile or _read_aws_profile
    if data_dir is not None:
        return from_data_dir(data_dir)
    if profile is not None:
        return _named_profile(profile, read)
    if named := environ.get("HOMEPORT_DATA_DIR"):
        return from_data_dir(Path(named))
    if endpoint_url := environ.get("AWS_ENDPOINT_URL"):
        return _from_environment(endpoint_url, environ, read)
    for name in dict.fromkeys((environ.get("AWS_PROFILE") or DEFAULT_PROFILE, DEFAULT_PROFILE)):
        if found := _from_profile(name, read(name)):
            return found
    if (usual := find_data_dir(None, {})) is not None:
        return from_data_dir(usual)
    raise NotFound(
        "No Homeport was found: no data directory here, no AWS profile named homeport, no AWS_ENDPOINT_URL.",
        hint="Start one with `homeport up`, name one with --data-dir DIR, or sign in to one: `homeport login`.",
    )


def _from_environment(endpoint_url: str, environ: Mapping[str, str], read: ProfileReader) -> Connection:
    key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    settings: Mapping[str, Any] = {}
    if not (key and secret):
        settings = read(environ.get("AWS_PROFILE") or DEFAULT_PROFILE)
        key, secret = settings.get("aws_access_key_id"), settings.get("aws_secret_access_key")
    if not (key and secret):
        raise CliError(
            "AWS_ENDPOINT_URL is set, but AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not.",
            hint='Set all three from a data directory: eval "$(homeport env --data-dir DIR)"',
        )
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or settings.get("region") or DEFAULT_REGION
    return Connection(
        endpoint_url=endpoint_url,
        region=region,
        access_key_id=key,
        secret_access_key=secret,
        ca_bundle=environ.get("AWS_CA_BUNDLE") or settings.get("ca_bundle"),
        source="environment variable AWS_ENDPOINT_URL",
    )


def _named_profile(name: str, read: ProfileReader) -> Connection:
    settings = read(name)
    if found := _from_profile(name, settings):
        return found
    if not settings:
        raise NotFound(f"There is no AWS profile named {name}.", hint=f"Make it: homeport login --profile {name}")
    raise CliError(
        f"The AWS profile {name} has no endpoint_url with access keys, so it doesn't lead to a Homeport control plane.",
        hint="`homeport login` writes a profile that does.",
    )


def _from_profile(name: str, settings: Mapping[str, Any]) -> Connection | None:
    wanted = ("endpoint_url", "aws_access_key_id", "aws_secret_access_key")
    if not all(settings.get(key) for key in wanted):
        return None
    endpoint_url, key, secret = (str(settings[key]) for key in wanted)
    return Connection(
        endpoint_url=endpoint_url,
        region=str(settings.get("region") or DEFAULT_REGION),
        access_key_id=key,
        secret_access_key=secret,
        ca_bundle=settings.get("ca_bundle"),
        source=f"AWS profile {name}",
    )


def _read_aws_profile(name: str) -> Mapping[str, Any]:
    from botocore.exceptions import BotoCoreError, ProfileNotFound
    from botocore.session import Session

    try:
        settings: Mapping[str, Any] = Session(profile=name).get_scoped_config()
    except ProfileNotFound:
        return {}
    except BotoCoreError as error:
        raise CliError(f"Your AWS configuration can't be read: {error}") from None
    return settings


def _readable(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.R_OK)
    except OSError:
        return False
