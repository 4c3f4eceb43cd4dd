"""`homeport deploy` and `rollback`: begin a deployment of a service, and undo the one under way."""

from typing import TYPE_CHECKING, Final

import click

from homeport.cli.deployment import OVER, how, timeout_option, watch_option, watch_until_over
from homeport.cli.errors import CliError
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import print_json, say
from homeport.cli.services import find_service, service_option

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["deploy", "rollback"]

#: What DescribeTaskDefinition shows and RegisterTaskDefinition doesn't take; the containers are given apart.
_NOT_REGISTERED: Final = (
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "containerDefinitions",
)


@click.command(cls=Command, short_help="Deploy a service anew.")
@click.argument("name")
@click.option("--task-definition", metavar="TD", help="family, family:revision or ARN; without: the one it has, anew.")
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="[CONTAINER=]IMAGE",
    help="Register a revision with this image first, and deploy that.",
)
@click.option("--force", is_flag=True, help="Replace the tasks even if the service has this task definition already.")
@service_option
@watch_option
@timeout_option
@target_options
@json_option
def deploy(
    name: str,
    task_definition: str | None,
    images: tuple[str, ...],
    force: bool,
    cluster: str | None,
    watch: bool,
    timeout: float,
    target: Target,
    as_json: bool,
) -> None:
    """Deploy the service NAME: a new task definition, a new image, or the same definition anew."""
    client = target.client()
    found = find_service(client, name, cluster)
    if images:
        task_definition = _register_with_images(client, task_definition or found["taskDefinition"], images)
    before = found["deployments"][0]["id"] if found["deployments"] else None
    answer = client.ecs(
        "update_service",
        cluster=found["cluster"],
        service=found["name"],
        taskDefinition=task_definition,
        forceNewDeployment=True if force or task_definition is None else None,
    )
    live = answer["service"]["deployments"]
    if not live or live[0]["id"] == before:
        say(f"{found['name']} has {found['taskDefinition']} already. --force replaces its tasks all the same.")
        if not live:
            return
    if watch:
        watch_until_over(client, found, live[0]["id"], timeout, as_json=as_json)
        return
    shown = client.own("DescribeDeployments", service=found["serviceArn"], deployment=live[0]["id"])
    if as_json:
        print_json(shown)
    else:
        latest = shown["deployments"][0]
        click.echo(f"{found['name']}: deployment {latest['id']} of {latest['taskDefinition']}: {how(latest)}")
        say(f"  Follow it: homeport deployment {found['name']} --watch")


def _register_with_images(client: "Client", task_definition: str | None, images: tuple[str, ...]) -> str:
    """Register a revision that differs by images alone, and return its ARN; the same one if none differs."""
    if task_definition is None:
        raise CliError("The service has no task definition of its own: its task sets have.")
    document = client.ecs("describe_task_definition", taskDefinition=task_definition, include=["TAGS"])
    definition = document["taskDefinition"]
    containers = {each["name"]: each for each in definition["containerDefinitions"]}
    wanted = {}
    for text in images:
        container, separator, image = text.rpartition("=")
        if not separator and len(containers) > 1:
            raise click.UsageError(
                f"Which container is {image} for? --image CONTAINER={image}, of {', '.join(containers)}."
            )
        container = container if separator else next(iter(containers))
        if container not in containers:
            raise click.UsageError(f"There is no container {container}, only {', '.join(containers)}.")
        wanted[container] = image
    if all(containers[name]["image"] == image for name, image in wanted.items()):
        return str(definition["taskDefinitionArn"])
    registered = client.ecs(
        "register_task_definition",
        **{member: value for member, value in definition.items() if member not in _NOT_REGISTERED},
        containerDefinitions=[
            {**each, "image": wanted.get(each["name"], each["image"])} for each in definition["containerDefinitions"]
        ],
        tags=document.get("tags") or None,
    )
    return str(registered["taskDefinition"]["taskDefinitionArn"])


@click.command(cls=Command, short_help="Stop a deployment under way, and roll it back.")
@click.argument("name")
@click.option("--abort", is_flag=True, help="Only stop it where it is.")
@service_option
@target_options
@json_option
def rollback(name: str, abort: bool, cluster: str | None, target: Target, as_json: bool) -> None:
    """Stop the deployment of the service NAME that is under way, and go back to the last one that was completed."""
    client = target.client()
    answer = client.own("DescribeDeployments", service=name, cluster=cluster)
    service = answer["service"]
    going = [each for each in answer["deployments"] if not each["rollbackOf"] and each["status"] not in OVER]
    if not going:
        raise CliError(
            f"No deployment of {service['name']} is under way.",
            hint=f"Deploy an earlier definition: homeport deploy {service['name']} --task-definition FAMILY:REVISION",
        )
    client.ecs(
        "stop_service_deployment",
        serviceDeploymentArn=going[0]["serviceDeploymentArn"],
        stopType="ABORT" if abort else "ROLLBACK",
    )
    shown = client.own("DescribeDeployments", service=service["serviceArn"], deployment=going[0]["id"])
    if as_json:
        print_json(shown)
    else:
        click.echo(f"{service['name']}: deployment {going[0]['id']}: {how(shown['deployments'][0])}")
        say(f"  Follow it: homeport deployment {service['name']} --watch")
