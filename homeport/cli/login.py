"""`homeport login`: writes an AWS profile, so that the AWS CLI, SDKs and `homeport` find this control plane."""

import os
from pathlib import Path

import click

from homeport.cli.awsfiles import (
    config_path,
    config_section,
    credentials_path,
    section_settings,
    write_profile,
)
from homeport.cli.connection import DEFAULT_PROFILE, DEFAULT_REGION, Connection, find_data_dir, from_data_dir
from homeport.cli.errors import CliError, NotFound
from homeport.cli.options import Command, data_dir_option, json_option
from homeport.cli.output import print_json

__all__ = ["login"]


@click.command(cls=Command)
@data_dir_option
@click.option("--profile", metavar="NAME", default=DEFAULT_PROFILE, show_default=True, help="Name of the AWS profile.")
@click.option("--endpoint", metavar="URL", help="A control plane on another machine, e.g. https://10.0.0.5:6181.")
@click.option("--access-key-id", metavar="ID", help="Its access key (with --endpoint).")
@click.option(
    "--secret-access-key", "--secret", metavar="KEY", help="Its secret (with --endpoint; asked for if missing)."
)
@click.option("--region", metavar="NAME", help="Its region (with --endpoint).")
@click.option("--ca-bundle", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its CA certificate.")
@click.option("--ca-hash", metavar="sha256:HEX", help="Fetch its CA certificate and check it against this.")
@click.option("--force", is_flag=True, help="Overwrite a profile of that name that isn't Homeport's.")
@json_option
def login(
    data_dir: Path | None,
    profile: str,
    endpoint: str | None,
    access_key_id: str | None,
    secret_access_key: str | None,
    region: str | None,
    ca_bundle: Path | None,
    ca_hash: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write an AWS profile that leads to this Homeport.

    Afterwards `AWS_PROFILE=homeport aws ecs list-clusters` works from anywhere, and so does `homeport ps`. Everything
    else in your AWS files stays as it is.
    """
    if not force:
        _refuse_foreign(profile)
    if endpoint is None:
        connection = _local(data_dir)
    else:
        if ca_hash is not None:
            ca_bundle = _fetched_ca(endpoint, ca_hash, profile)
        connection = _remote(endpoint, access_key_id, secret_access_key, region, ca_bundle)
    config, credentials = _write(connection, profile)
    answered, account = _try(connection)
    if as_json:
        print_json(
            {
                "profile": profile,
                "endpointUrl": connection.endpoint_url,
                "region": connection.region,
                "account": account,
                "configFile": str(config),
                "credentialsFile": str(credentials),
            }
        )
        return
    click.echo(f"Wrote the AWS profile {profile} to {config} and {credentials}.")
    click.echo(f"It leads to {connection.endpoint_url}{f' (account {account})' if account else ''}.{answered}")
    click.echo(f"Try: AWS_PROFILE={profile} aws ecs list-clusters")


def _local(data_dir: Path | None) -> Connection:
    found = find_data_dir(data_dir, os.environ)
    if found is None:
        raise NotFound(
            "There is no control plane's data directory in ./.homeport, /var/lib/homeport or ~/.local/share/homeport.",
            hint="Start one with `homeport up`, name one with --data-dir DIR, or give --endpoint URL of a remote one.",
        )
    return from_data_dir(found.absolute())


def _remote(
    endpoint: str, access_key_id: str | None, secret: str | None, region: str | None, ca_bundle: Path | None
) -> Connection:
    if not endpoint.startswith(("http://", "https://")):
        raise click.BadParameter("expected a URL such as https://10.0.0.5:6181", param_hint="--endpoint")
    if access_key_id is None:
        raise click.UsageError("--endpoint needs --access-key-id (and --secret-access-key) of that control plane.")
    return Connection(
        endpoint_url=endpoint.rstrip("/"),
        region=region or DEFAULT_REGION,
        access_key_id=access_key_id,
        secret_access_key=secret or click.prompt("Secret access key", hide_input=True, err=True),
        ca_bundle=None if ca_bundle is None else str(ca_bundle.absolute()),
        source="the flags of login",
    )


def _refuse_foreign(profile: str) -> None:
    """Keep a profile that leads elsewhere, e.g. to AWS, from being overwritten by a slip."""
    config, credentials = config_path(os.environ), credentials_path(os.environ)
    settings = section_settings(config.read_text(), config_section(profile)) if config.exists() else None
    keys = section_settings(credentials.read_text(), profile) if credentials.exists() else None
    if (settings or keys) and "endpoint_url" not in (settings or {}):
        raise CliError(
            f"The AWS profile {profile} exists already and leads to AWS, not to a Homeport.",
            hint="Choose another name with --profile NAME, or overwrite it with --force.",
        )


def _write(connection: Connection, profile: str) -> tuple[Path, Path]:
    return write_profile(
        profile,
        settings={
            "region": connection.region,
            "endpoint_url": connection.endpoint_url,
            "ca_bundle": connection.ca_bundle,
            "disable_host_prefix_injection": "true",
        },
        credentials={
            "aws_access_key_id": connection.access_key_id,
            "aws_secret_access_key": connection.secret_access_key,
            # A token left behind by another login would go along with each request.
            "aws_session_token": None,
        },
        environ=os.environ,
    )


def _try(connection: Connection) -> tuple[str, str | None]:
    """Ask the control plane who we are. Return a sentence if it can't be said, and the account."""
    from homeport.cli.client import Client

    try:
        return "", Client(connection, attempts=1).account()
    except CliError as error:
        return f"\nNote: {error.message} The profile is written all the same.", None


def _fetched_ca(endpoint: str, ca_hash: str, profile: str) -> Path:
    from homeport.cli.trust import fetch_ca
    from homeport.daemon import write_private

    path = config_path(os.environ).parent / f"{profile}-ca.pem"
    write_private(path, fetch_ca(endpoint, ca_hash))
    return path.absolute()
