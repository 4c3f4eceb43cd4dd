"""Options that many commands share, and the command class that turns every failure into one sentence."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from homeport.cli.connection import Connection, resolve
from homeport.cli.errors import EXIT_INTERRUPTED, CliError
from homeport.errors import HomeportError

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["Command", "Target", "cluster_option", "data_dir_option", "json_option", "target_options", "types_option"]

F = TypeVar("F", bound=Callable[..., Any])


class Command(click.Command):
    """A command whose failures are sentences: Ctrl-C ends it quietly, nothing shows a traceback.

    HOMEPORT_DEBUG=1 lets the traceback of a bug through.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise
        except ModuleNotFoundError as error:
            raise CliError(
                f"This command needs the Python package {error.name}, which isn't installed.",
                hint="A host with the agent alone doesn't have it. Install: pip install 'homeport[agent,controlplane]'",
            ) from error
        except HomeportError as error:
            raise CliError(str(error)) from error
        except OSError as error:
            raise CliError(_os_error_text(error)) from error
        except Exception as error:
            if os.environ.get("HOMEPORT_DEBUG"):
                raise
            raise CliError(
                f"This is a bug in homeport: {type(error).__name__}: {error}",
                hint="Set HOMEPORT_DEBUG=1 and run it again to see where.",
            ) from error


def _os_error_text(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text


class Target:
    """Which control plane a command speaks to, as its flags say. Finding and opening it happens on first use."""

    def __init__(self, *, data_dir: Path | None, profile: str | None) -> None:
        self._data_dir = data_dir
        self._profile = profile

    def connection(self) -> Connection:
        """Find the control plane. Raises NotFound or CliError."""
        return resolve(data_dir=self._data_dir, profile=self._profile, environ=os.environ)

    def client(self) -> "Client":
        """Return a client for it; raises as `connection` does, but doesn't connect yet."""
        from homeport.cli.client import Client

        return Client(self.connection())


def data_dir_option(function: F) -> F:
    """Add `--data-dir`."""
    option = click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="The control plane's data directory [env: HOMEPORT_DATA_DIR; default: ./.homeport].",
    )
    return option(function)


def target_options(function: F) -> F:
    """Add `--data-dir` and `--profile`, and hand the command a `target`."""
    import functools

    @functools.wraps(function)
    def wrapper(*args: Any, data_dir: Path | None, profile: str | None, **kwargs: Any) -> Any:
        return function(*args, target=Target(data_dir=data_dir, profile=profile), **kwargs)

    profile = click.option(
        "--profile", metavar="NAME", help="AWS profile to use [env: AWS_PROFILE; default: homeport]."
    )
    return data_dir_option(profile(wrapper))  # type: ignore[return-value]


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)


def cluster_option(function: F) -> F:
    """Add `--cluster`."""
    return click.option("--cluster", metavar="NAME", default="default", show_default=True, help="The cluster.")(
        function
    )


def types_option(function: F) -> F:
    """Add `--type`: kinds of events."""
    text = "Only task, instance, deployment or service, or a whole detail-type; may be repeated."
    return click.option("--type", "types", multiple=True, metavar="TYPE", help=text)(function)
