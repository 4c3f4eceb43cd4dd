"""The operations that ECS has no like of, served beside it under the target prefix `Homeport_20261101`.

They are what the `homeport` command needs: JSON 1.1, SigV4 (signing name `homeport`), errors in ECS's shape.
ECS's own operations are used wherever ECS can say it; nothing here changes what they mean.

    DescribeStatus   the installation at a glance
    DescribeNodes    hosts with names, load, health
    FindTasks        tasks by the beginning of an id, or by cluster and host
    DescribeStory    what happened to a task, also long after it stopped
    JoinCommand      an activation, and the command that joins a host with it
"""

import heapq
import shlex
from collections.abc import Iterator
from typing import Final, TypeVar

import msgspec
import psutil

from controlplane.api import pagination
from controlplane.api.ecs.lookup import find_cluster
from controlplane.api.errors import ApiError, InvalidParameterException
from controlplane.api.homeport_lookup import matching_tasks, only
from controlplane.api.homeport_views import node_view, story_line_view, task_view
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.fleet.activations import new_activation
from controlplane.state.records import InstanceRecord, TaskRecord
from homeport import __version__

__all__ = ["MAX_JOINS", "MAX_PAGE", "SERVICE", "Paged", "Request", "parse"]

SERVICE: Final = "homeport"
#: Items in one page of DescribeNodes and FindTasks.
MAX_PAGE: Final = 1000
#: Hosts one activation may let in, and how long it may stay open: SSM's own limits.
MAX_JOINS: Final = 1000
_MAX_EXPIRY_S: Final = 30 * 86400
_DEFAULT_EXPIRY_S: Final = 86400

R = TypeVar("R", bound="Request")


class Request(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all requests. Unknown members are dropped, as AWS does."""


class Paged(Request, frozen=True):
    """Base of the requests that are answered in pages."""

    max_results: int | None = None
    next_token: str | None = None


class _DescribeNodes(Paged, frozen=True):
    cluster: str | None = None
    node: str | None = None
    #: Also hosts that were deregistered.
    inactive: bool = False


class _FindTasks(Paged, frozen=True):
    prefix: str | None = None
    cluster: str | None = None
    node: str | None = None
    #: Also tasks that have stopped (those in memory: about an hour).
    stopped: bool = False


class _DescribeStory(Request, frozen=True):
    task: str


class _JoinCommand(Request, frozen=True):
    cluster: str | None = None
    count: int = 1
    expires_in_s: float = _DEFAULT_EXPIRY_S
    description: str = ""


def parse(document: Document, kind: type[R]) -> R:
    """Return a request as `kind` has it. Raises InvalidParameterException."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise InvalidParameterException(f"The request can't be used: {error}.") from error


# ---------------------------------------------------------------- the installation


@operation(SERVICE, "DescribeStatus")
def describe_status(context: Context, _document: Document) -> Document:
    """Answer with version, identity, addresses, and how many there are of what."""
    state = context.state
    active = [instance for instance in state.instances if instance.status != "INACTIVE"]
    impaired = sum(_is_impaired(context, instance) for instance in active)
    logs = context.logs.usage()
    return {
        "version": __version__,
        "account": context.arns.account,
        "region": context.arns.region,
        "startedAt": psutil.Process().create_time(),
        "now": context.clock.now(),
        "revision": state.revision,
        "localUrl": context.endpoints.local_url,
        "networkUrl": context.endpoints.network_url,
        "caHash": context.endpoints.ca_hash,
        "clusters": sum(cluster.status == "ACTIVE" for cluster in state.clusters),
        "taskDefinitions": state.task_definitions.count("status", "ACTIVE"),
        "nodes": {
            "registered": len(active),
            "connected": sum(state.presence.connected(instance.id) for instance in active),
            "draining": sum(instance.status == "DRAINING" for instance in active),
            "impaired": impaired,
        },
        "tasks": {name: state.tasks.count("phase", name) for name in ("pending", "running", "stopped")},
        "logs": {"usedBytes": logs.used_bytes, "limitBytes": logs.limit_bytes, "problem": logs.problem},
    }


def _is_impaired(context: Context, instance: InstanceRecord) -> bool:
    presence = context.state.presence.of(instance.id)
    return presence is not None and presence.connected and bool(presence.impaired)


# ---------------------------------------------------------------- hosts


@operation(SERVICE, "DescribeNodes")
def describe_nodes(context: Context, document: Document) -> Document:
    """Answer with hosts: all, those of a cluster, or those whose id or host name `node` names.

    `node` is the beginning of an id, or a whole host name.
    """
    request = parse(document, _DescribeNodes)
    table, after = context.state.instances, pagination.after(document)
    if request.cluster is None:
        found = table.page(None, None, after=after)
    else:
        found = table.page("cluster", find_cluster(context, request.cluster).name, after=after)
    wanted = (
        instance
        for instance in found
        if (request.inactive or instance.status != "INACTIVE") and _is_named(instance, request.node)
    )
    page = pagination.take(wanted, document, key=lambda instance: instance.id, maximum=MAX_PAGE)
    return {"nodes": [node_view(context, instance) for instance in page.items], **page.more}


def _is_named(instance: InstanceRecord, name: str | None) -> bool:
    if name is None:
        return True
    if not name:
        return False
    return instance.id.startswith(name.rsplit("/", 1)[-1]) or instance.facts.hostname == name


@operation(SERVICE, "JoinCommand")
def join_command(context: Context, document: Document) -> Document:
    """Make an activation and answer with the command that joins `count` hosts with it."""
    request = parse(document, _JoinCommand)
    if not 1 <= request.count <= MAX_JOINS:
        raise InvalidParameterException(f"count must be between 1 and {MAX_JOINS}, but was {request.count}.")
    if not 60 <= request.expires_in_s <= _MAX_EXPIRY_S:
        raise InvalidParameterException(
            f"expiresInS must be between 60 and {_MAX_EXPIRY_S} seconds (30 days), but was {request.expires_in_s:g}."
        )
    cluster = find_cluster(context, request.cluster).name
    activation, code = new_activation(
        context,
        description=request.description[:256],
        registration_limit=request.count,
        expires_at=context.clock.now() + request.expires_in_s,
        cluster="" if request.cluster is None else cluster,
    )
    url = context.endpoints.network_url or context.endpoints.local_url
    ca_hash = context.endpoints.ca_hash if url.startswith("https://") else None
    arguments = ["--server", url, "--activation-id", activation.id, "--activation-code", code]
    if ca_hash is not None:
        arguments += ["--ca-hash", ca_hash]
    elif url.startswith("http://") and context.endpoints.network_url is not None:
        # Whoever started the control plane asked for plain http by name; the agent wants to be told, too.
        arguments.append("--allow-plain-http")
    return {
        "activationId": activation.id,
        "activationCode": code,
        "cluster": cluster,
        "registrationLimit": activation.registration_limit,
        "expiresAt": activation.expires_at,
        "serverUrl": url,
        "caHash": ca_hash,
        "loopbackOnly": context.endpoints.network_url is None,
        "command": shlex.join(["homeport-agent", "join", *arguments]),
    }


# ---------------------------------------------------------------- tasks


@operation(SERVICE, "FindTasks")
async def find_tasks(context: Context, document: Document) -> Document:
    """Answer with tasks: those a `prefix` may mean (live or archived), or a page of a cluster's or a host's."""
    request = parse(document, _FindTasks)
    if request.prefix is not None:
        matches = await matching_tasks(context, request.prefix)
        return {"tasks": [task_view(context, task, archived=archived) for task, archived in matches]}
    found = _listed(context, request, pagination.after(document))
    page = pagination.take(found, document, key=lambda task: task.id, maximum=MAX_PAGE)
    return {"tasks": [task_view(context, task) for task in page.items], **page.more}


def _listed(context: Context, request: _FindTasks, after: str | None) -> Iterator[TaskRecord]:
    """Iterate tasks by id. Without stopped ones only those that aren't are looked at: they may be few among many."""
    tasks = context.state.tasks
    phases = ("pending", "running", "stopped") if request.stopped else ("pending", "running")
    if request.node is not None:
        index, head = "instance_phase", _instance(context, request.node).id
    else:
        index, head = "cluster_phase", find_cluster(context, request.cluster).name  # type: ignore[assignment]
    pages = [tasks.page(index, (head, phase), after=after) for phase in phases]
    return heapq.merge(*pages, key=lambda task: task.id)


def _instance(context: Context, reference: str) -> InstanceRecord:
    found = context.state.instances.get(reference.rsplit("/", 1)[-1])
    if found is None:
        raise ApiError(f"No node was found with the id '{reference}'.", code="ContainerInstanceNotFoundException")
    return found


@operation(SERVICE, "DescribeStory")
async def describe_story(context: Context, document: Document) -> Document:
    """Answer with a task and the lines of its story, oldest first."""
    request = parse(document, _DescribeStory)
    matches = await matching_tasks(context, request.task)
    task = only([task for task, _ in matches], request.task)
    # What is told at this moment may not be durable yet, and the journal reads only what is.
    await context.state.durable()
    lines = await context.state.journal.story(task.id)
    archived = next(archived for found, archived in matches if found is task)
    return {
        "task": task_view(context, task, archived=archived),
        "lines": [story_line_view(line) for line in lines],
    }
