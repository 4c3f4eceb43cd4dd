"""What EventBridge Scheduler and EventBridge have in common: their tags, pages, tokens, and ECS targets.

Both spell members with capitals and call what can't be used a ValidationException.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from controlplane.api import pagination
from controlplane.api.arguments import MAX_TAGS
from controlplane.api.ecs.lookup import local_path
from controlplane.api.ecs.tasks import TOKEN_LIFETIME_S
from controlplane.api.errors import ApiError, InvalidParameterException
from controlplane.api.registry import Document
from controlplane.context import Context
from controlplane.schedules.policy import policy_of
from controlplane.schedules.target import check_request, run_task_request
from controlplane.state.records import IdempotencyRecord
from controlplane.state.schedule_records import TriggerRecord

__all__ = [
    "check_target",
    "invalid",
    "merged_tags",
    "once",
    "page_after",
    "rendered_tags",
    "take_page",
]

T = TypeVar("T")

#: The most tasks that one occurrence may start: what RunTask starts at most.
_MAX_TASKS: Final = 10
#: Members of a target that belong to other services' targets.
_FOREIGN: Final = "Parameters"


def invalid(message: str) -> ApiError:
    """Make a ValidationException."""
    return ApiError(message, code="ValidationException")


def merged_tags(tags: Iterable[Mapping[str, str]], existing: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return tags on top of existing ones. Raises ApiError for reserved keys, and beyond 50 tags."""
    merged = dict(existing or {})
    for tag in tags:
        if tag["Key"].lower().startswith("aws:"):
            raise invalid(f"Tags: keys that begin with 'aws:' are reserved: '{tag['Key']}'.")
        merged[tag["Key"]] = tag["Value"]
    if len(merged) > MAX_TAGS:
        raise invalid(f"Tags: the number of tags exceeds the limit of {MAX_TAGS} for a resource.")
    try:
        policy_of({}, merged)
    except ValueError as error:
        raise invalid(str(error)) from error
    return merged


def rendered_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags in the services' shape."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def page_after(request: Document) -> str | None:
    """Return the key behind which the wanted page begins. Raises ApiError for a NextToken that isn't ours."""
    try:
        return pagination.after(request, token_member="NextToken")  # noqa: S106 - no password
    except InvalidParameterException as error:
        raise invalid("Invalid NextToken: it is not one that was returned by an earlier call.") from error


def take_page(
    items: Iterable[T], request: Document, *, key: Callable[[T], str], limit: str
) -> tuple[list[T], dict[str, str]]:
    """Cut a page off the front of `items`; `limit` is the member with its size. Returns it and a NextToken, if any."""
    page = pagination.take(items, {"maxResults": request.get(limit, pagination.MAX_RESULTS)}, key=key)
    return page.items, {"NextToken": page.more["nextToken"]} if page.more else {}


def once(context: Context, operation: str, scope: str, request: Document, do: Callable[[], str]) -> str:
    """Do what a request with a ClientToken asks for, or return what the same request returned within a day.

    Raises ApiError ConflictException if the token came with another request.
    """
    token = request.get("ClientToken")
    if not token:
        return do()
    said = {name: value for name, value in request.items() if name != "ClientToken"}
    fingerprint = hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()
    now = context.clock.now()
    known = context.state.idempotency.get(f"{operation}/{scope}/{token}")
    if known is not None and now - known.at < TOKEN_LIFETIME_S:
        if known.fingerprint != fingerprint:
            raise ApiError(
                f"The ClientToken {token} was used for another {operation} request before.", code="ConflictException"
            )
        return known.result[0]
    with context.state.transaction() as transaction:
        result = do()
        transaction.put(
            IdempotencyRecord(
                operation=operation, scope=scope, token=token, fingerprint=fingerprint, at=now, result=(result,)
            )
        )
    return result


def check_target(context: Context, target: Document, trigger: TriggerRecord) -> None:
    """Raise ApiError ValidationException if a target isn't an ECS cluster of ours, or can't ever be run."""
    arn = target["Arn"]
    foreign = [name for name in target if name.endswith(_FOREIGN) and name != "EcsParameters"]
    if local_path(context, arn, "cluster") is None or foreign:
        what = f"{foreign[0]} isn't" if foreign else f"The target {arn:.300} isn't"
        raise invalid(
            f"{what} served by Homeport: a target is an ECS cluster of this account and region"
            f" ({context.arns.cluster('NAME')}) with EcsParameters."
        )
    if "EcsParameters" not in target:
        name = f": {target['Id']}" if "Id" in target else f" {arn:.300}"
        raise invalid(f"Parameter(s) EcsParameters must be specified for target{name}.")
    parameters: dict[str, Any] = target["EcsParameters"]
    count = parameters.get("TaskCount", 1)
    if count > _MAX_TASKS:
        raise invalid(f"TaskCount must be between 1 and {_MAX_TASKS}, but was {count}.")
    if parameters.get("LaunchType") and parameters.get("CapacityProviderStrategy"):
        raise invalid("LaunchType and CapacityProviderStrategy can't be given both.")
    try:
        policy_of(target, {})
        check_request(run_task_request(target, trigger, context.arns))
    except ValueError as error:
        raise invalid(str(error)) from error
    except ApiError as error:
        raise invalid(error.message) from error
