"""`homeport env`: the environment variables that point AWS tools at a control plane."""

import shlex

import click

from homeport.cli.connection import Connection
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import print_json

__all__ = ["env", "variables"]


def variables(connection: Connection) -> dict[str, str]:
    """Return what a shell must have set for the AWS CLI, the SDKs and `homeport` to use this control plane.

    Both names of the region are there, since SDKs differ in which they read. Some operations (StartLiveTail) would put
    a prefix before the host's name, which only AWS's own DNS knows.
    """
    found = {
        "AWS_ENDPOINT_URL": connection.endpoint_url,
        "AWS_ACCESS_KEY_ID": connection.access_key_id,
        "AWS_SECRET_ACCESS_KEY": connection.secret_access_key,
        "AWS_DEFAULT_REGION": connection.region,
        "AWS_REGION": connection.region,
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
    }
    if connection.ca_bundle:
        found["AWS_CA_BUNDLE"] = connection.ca_bundle
    return found


@click.command(cls=Command)
@target_options
@json_option
def env(target: Target, as_json: bool) -> None:
    """Print the exports that point AWS tools here.

    Use it as: eval "$(homeport env --data-dir DIR)"
    """
    found = variables(target.connection())
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        click.echo(f"export {name}={shlex.quote(value)}")
