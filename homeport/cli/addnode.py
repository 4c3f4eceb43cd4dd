"""`homeport add-node`: the one command that joins another host."""

import shlex
from typing import TYPE_CHECKING, Any, Final

import click

from homeport.cli.durations import DURATION
from homeport.cli.errors import CliError
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import age, print_json, say

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["add_node", "install_command"]

_SCRIPT_PATH: Final = "/install.sh"


def install_command(*, server_url: str, script_sha256: str, activation_id: str, activation_code: str) -> str:
    """Return the shell command that gets the installer from the control plane, checks it, and runs it.

    Whoever serves the script need not be known (-k): it runs only if it has the digest that the command carries.
    """
    url = shlex.quote(server_url + _SCRIPT_PATH)
    # A file that mktemp made is root's own: nobody can exchange its content between the check and the run.
    return (
        f"f=$(mktemp) && {{ curl -fsSk {url} || wget -qO- --no-check-certificate {url}; }} >$f && "
        f'echo "{script_sha256}  $f" | sha256sum --check --quiet && '
        f"sh $f --activation-id {shlex.quote(activation_id)} --activation-code {shlex.quote(activation_code)}"
    )


@click.command("add-node", cls=Command)
@click.option("--cluster", metavar="NAME", help="The cluster the host joins. [default: default]")
@click.option("--count", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many hosts may use it.")
@click.option("--expires", type=DURATION, default="1d", show_default=True, help="How long it may be used, e.g. 1h, 7d.")
@click.option("--join-only", is_flag=True, help="For a host that has homeport-agent already: only join.")
@click.option("--local", is_flag=True, help="For another agent on the control plane's own machine: only join.")
@target_options
@json_option
def add_node(
    cluster: str | None, count: int, expires: float, join_only: bool, local: bool, target: Target, as_json: bool
) -> None:
    """Print the command that joins another host. Run it there, as root.

    It installs the agent from this control plane (on Debian and Ubuntu also Docker, with --install-docker behind it)
    and joins. The command alone is on standard output, so that it can be sent: ssh root@HOST "$(homeport add-node)"
    """
    client = target.client()
    if not local and client.own("DescribeStatus")["networkUrl"] is None:
        raise CliError(
            "This control plane listens on this machine only (loopback), so no other host can reach it.",
            hint="Start it with an address that they reach, e.g. "
            "`homeport up --listen 127.0.0.1:6180 --listen 0.0.0.0:6181`; for an agent on this machine add --local.",
        )
    digest = None if join_only or local else _script_digest(client)
    made = client.own("JoinCommand", cluster=cluster, count=count, expiresInS=expires, description="homeport add-node")
    if digest is not None:
        made["installCommand"] = install_command(
            server_url=made["serverUrl"],
            script_sha256=digest,
            activation_id=made["activationId"],
            activation_code=made["activationCode"],
        )
    if as_json:
        print_json(made)
        return
    _explain(made, count=count, expires_s=expires)
    click.echo(made.get("installCommand") or made["command"])


def _script_digest(client: "Client") -> str:
    """Return the SHA-256 of the installer as this control plane hands it out; the first time it takes some seconds."""
    import hashlib

    from homeport.cli.lookup import progress

    with progress("preparing the installer"):
        try:
            return hashlib.sha256(client.fetch(_SCRIPT_PATH)).hexdigest()
        except CliError as error:
            raise CliError(
                f"The control plane can't prepare the installer: {error.message}",
                hint="If the host has homeport-agent already: homeport add-node --join-only",
            ) from error


def _explain(made: dict[str, Any], *, count: int, expires_s: float) -> None:
    hosts = "one host" if count == 1 else f"up to {count} hosts"
    cluster = made["cluster"]
    say(f"Run this as root on the new host; it may join {hosts} to the cluster {cluster} for {age(expires_s)}:")
    if "installCommand" not in made:
        say("(Then start the agent there: `systemctl enable --now homeport-agent`, or `homeport-agent run`.)")
