"""`homeport version`."""

import click

from homeport import __version__
from homeport.cli.options import Command, json_option
from homeport.cli.output import print_json

__all__ = ["version"]


@click.command(cls=Command)
@json_option
def version(as_json: bool) -> None:
    """Print the version."""
    if as_json:
        print_json({"version": __version__})
    else:
        click.echo(f"homeport {__version__}")
