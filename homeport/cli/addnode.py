"""`homeport add-node`: the one command that joins another host."""

import click

from homeport.cli.durations import DURATION
from homeport.cli.errors import CliError
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import age, print_json, say

__all__ = ["add_node"]


@click.command("add-node", cls=Command)
@click.option("--cluster", metavar="NAME", help="The cluster the host joins. [default: default]")
@click.option("--count", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many hosts may use it.")
@click.option("--expires", type=DURATION, default="1d", show_default=True, help="How long it may be used, e.g. 1h, 7d.")
@click.option("--local", is_flag=True, help="For a second agent on the control plane's own machine.")
@target_options
@json_option
def add_node(cluster: str | None, count: int, expires: float, local: bool, target: Target, as_json: bool) -> None:
    """Print the command that joins another host. Run it there, as root.

    The command alone is on standard output, so that it can be sent: ssh root@HOST "$(homeport add-node)"
    """
    client = target.client()
    if not local and client.own("DescribeStatus")["networkUrl"] is None:
        raise CliError(
            "This control plane listens on this machine only (loopback), so no other host can reach it.",
            hint="Start it with an address that they reach, e.g. "
            "`homeport up --listen 127.0.0.1:6180 --listen 0.0.0.0:6181`; for an agent on this machine add --local.",
        )
    made = client.own("JoinCommand", cluster=cluster, count=count, expiresInS=expires, description="homeport add-node")
    if as_json:
        print_json(made)
        return
    hosts = "one host" if count == 1 else f"up to {count} hosts"
    say(f"Run this as root on the new host; it lets {hosts} join the cluster {made['cluster']} within {age(expires)}.")
    say("The host needs Docker and homeport-agent (see docs/operations.md).")
    click.echo(made["command"])
