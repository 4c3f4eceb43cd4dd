"""Arguments that several operations share: tags, and references that must be resolved before the work begins."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from controlplane.api.errors import InvalidParameterException

__all__ = ["MAX_TAGS", "check_list_size", "fingerprint", "render_tags", "require", "tags_of"]

#: Tags that a resource can have. Keys have up to 128 characters, values up to 256 (the model checks those).
MAX_TAGS: Final = 50

#: AWS keeps this beginning of a key, in any case, for itself.
_RESERVED_PREFIX: Final = "aws:"


def tags_of(
    request: Mapping[str, Any], *, existing: Mapping[str, str] | None = None, member: str = "tags"
) -> dict[str, str]:
    """Return the tags of a request as a dict, on top of `existing` ones.

    Raises InvalidParameterException for a missing, repeated or reserved key, and beyond 50 tags.
    """
    given: dict[str, str] = {}
    for tag in request.get(member, ()):
        key = tag.get("key")
        if not key:
            raise InvalidParameterException(f"{member}: each tag needs a key of 1 to 128 characters.")
        if key.lower().startswith(_RESERVED_PREFIX):
            raise InvalidParameterException(
                f"{member}: the key '{key}' can't be used: keys that begin with '{_RESERVED_PREFIX}' are reserved."
            )
        if key in given:
            raise InvalidParameterException(f"{member}: duplicate tag keys found: '{key}'. Each key can be given once.")
        given[key] = tag.get("value", "")
    merged = {**(existing or {}), **given}
    if len(merged) > MAX_TAGS:
        raise InvalidParameterException(f"{member}: the number of tags exceeds the limit of {MAX_TAGS} for a resource.")
    return merged


def render_tags(tags: dict[str, str]) -> list[dict[str, str]]:
    """Return tags in ECS's shape, in the order they were given."""
    return [{"key": key, "value": value} for key, value in tags.items()]


def require(request: dict[str, Any], member: str) -> Any:
    """Return a member that the model leaves optional but must not be missing or empty.

    Raises InvalidParameterException.
    """
    value = request.get(member)
    if value in (None, "", [], {}):
        raise InvalidParameterException(f"{member} must not be empty.")
    return value


def check_list_size(request: dict[str, Any], member: str, maximum: int) -> None:
    """Raise InvalidParameterException if a list of references is longer than ECS takes in one call."""
    if len(request.get(member, ())) > maximum:
        raise InvalidParameterException(f"{member} can have at most {maximum} items, but has {len(request[member])}.")


def fingerprint(request: Mapping[str, Any]) -> str:
    """Return a hash of all that a request says, less its clientToken: tells a repetition from another request."""
    said = {member: value for member, value in request.items() if member != "clientToken"}
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()
