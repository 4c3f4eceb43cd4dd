"""What the command line says when something can't be done, and the exit codes it ends with."""

from typing import IO, Any, Final

import click

__all__ = [
    "EXIT_CONFIG",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_NOT_FOUND",
    "EXIT_UNREACHABLE",
    "CannotConnect",
    "CliError",
    "NotFound",
    "Unusable",
]

EXIT_FAILED: Final = 1
#: What was named doesn't exist.
EXIT_NOT_FOUND: Final = 3
#: The control plane can't be reached, or refuses our credentials.
EXIT_UNREACHABLE: Final = 4
#: A setting can't be used (sysexits' EX_CONFIG).
EXIT_CONFIG: Final = 78
#: Ctrl-C, as shells count it.
EXIT_INTERRUPTED: Final = 130


class CliError(click.ClickException):
    """A command failed. `message` says what happened, `hint` what to do about it."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        #: The name of the control plane's error, if it is one.
        self.code = code

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error on stderr: one sentence, and the hint below it."""
        click.echo(f"homeport: {self.format_message()}", file=file, err=True)
        if self.hint:
            click.echo(f"  {self.hint}", file=file, err=True)


class NotFound(CliError):
    """What was named doesn't exist."""

    exit_code = EXIT_NOT_FOUND


class CannotConnect(CliError):
    """The control plane can't be reached, or refuses our credentials."""

    exit_code = EXIT_UNREACHABLE


class Unusable(CliError):
    """A setting or flag can't be used."""

    exit_code = EXIT_CONFIG
