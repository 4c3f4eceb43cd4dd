"""What `homeport up` is told: flags first, then the environment, then a TOML file (click does the merging)."""

import tomllib
from pathlib import Path

import click
import msgspec

__all__ = ["UpSettings", "read_config_file"]


class UpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `homeport up`. None: the control plane keeps what it has, or makes it."""

    data_dir: Path
    #: As `--listen` of the control plane takes them; empty: its defaults.
    listen: tuple[str, ...] = ()
    insecure_http: bool = False
    advertise: str | None = None
    agent: bool = True
    docker_host: str
    region: str | None = None
    account: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    sample: bool = False
    #: Daemons log to files below the data directory instead of stderr.
    quiet: bool = False


def read_config_file(context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Make a TOML file's values the defaults of the flags; an unknown setting is an error."""
    if path is None:
        return None
    try:
        values = {key.replace("-", "_"): value for key, value in tomllib.loads(path.read_text()).items()}
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"can't read {path}: {error}") from error
    known = {parameter.name: parameter for parameter in context.command.params}
    if unknown := sorted(set(values) - set(known)):
        raise click.BadParameter(f"{path}: unknown setting {', '.join(unknown)}")
    context.default_map = {
        # One address may be written without the brackets of a list.
        key: [value] if isinstance(value, str) and getattr(known[key], "multiple", False) else value
        for key, value in values.items()
    }
    return path
