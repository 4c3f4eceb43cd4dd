"""The command `homeport` and the list of its subcommands."""

import click

from homeport import __version__
from homeport.cli.addnode import add_node
from homeport.cli.backup import backup, restore
from homeport.cli.deploy import deploy, rollback
from homeport.cli.deployment import deployment
from homeport.cli.drain import drain
from homeport.cli.env import env
from homeport.cli.events import events
from homeport.cli.explain import explain
from homeport.cli.login import login
from homeport.cli.logs import logs
from homeport.cli.nodes import nodes
from homeport.cli.plan import plan
from homeport.cli.ps import ps
from homeport.cli.query import query
from homeport.cli.run import run
from homeport.cli.schedules import schedule, schedules
from homeport.cli.services import scale, service, services
from homeport.cli.status import status
from homeport.cli.stop import stop
from homeport.cli.story import story
from homeport.cli.up import up
from homeport.cli.version import version
from homeport.cli.webhooks import webhooks

__all__ = ["cli"]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 can't reach the control plane, 78 bad setting.",
)
@click.version_option(__version__, "-V", "--version", message="homeport %(version)s")
def cli() -> None:
    """Run containers on machines you own, behind the Amazon ECS API.

    Begin with `homeport up`: it starts everything on this machine and tells you what to try next.
    """


for _command in (
    *(up, env, login, status),
    *(nodes, add_node, drain),
    *(run, ps, stop, logs, query, story),
    *(events, explain, plan),
    *(services, service, scale, deploy, deployment, rollback),
    *(schedules, schedule, webhooks),
    *(backup, restore, version),
):
    cli.add_command(_command)
