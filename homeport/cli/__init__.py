"""The command line, `homeport`.

One module per command beside this one; `group` puts them together. A command resolves where its control plane is
(`connection`), asks it (`client`), and shows the answer (`output`). Heavy libraries (botocore, rich, aiohttp) are
imported where they are used, so that `homeport --help` is there at once.

Exit codes (`errors`): 0 done, 1 failed, 2 wrong usage, 3 not found, 4 the control plane can't be reached or doesn't let
us in, 78 a setting can't be used, 130 interrupted.
"""

__all__ = ["main"]


def main() -> None:
    """Run the command line; ends the process."""
    from homeport.cli.group import cli

    cli(prog_name="homeport")
