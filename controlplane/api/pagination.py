"""Paging of List* operations: an opaque nextToken that names the last key given out, so that pages are stable.

    after = pagination.after(request)
    records = state.tasks.page("cluster", name, after=after)
    page = pagination.take(records, request, key=lambda record: record.key)
    return {"taskArns": [... for record in page.items], **page.more}

What is added or removed between two pages shows, or not, by its place in key order; nothing is given out twice.
"""

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from controlplane.api.errors import InvalidParameterException

__all__ = ["MAX_RESULTS", "Page", "after", "decode_token", "encode_token", "page_size", "take"]

#: The most ECS gives out in one page, and what it gives when a request doesn't say.
MAX_RESULTS: Final = 100

#: Begins each token: tells ours from others and leaves room for another form.
_VERSION: Final = b"1:"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page. `more` is `{"nextToken": ...}` if something follows, else empty: merge it into the answer."""

    items: list[T]
    more: dict[str, str] = field(default_factory=dict)


def encode_token(key: str) -> str:
    """Make the opaque token that stands for "behind this key"."""
    return base64.urlsafe_b64encode(_VERSION + key.encode()).decode().rstrip("=")


def decode_token(token: str) -> str:
    """Return the key inside a token. Raises InvalidParameterException if it isn't one of ours."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        if raw.startswith(_VERSION):
            return raw[len(_VERSION) :].decode()
    except (binascii.Error, ValueError):
        pass
    raise InvalidParameterException("Invalid token: nextToken is not one that was returned by an earlier call.")


def after(request: dict[str, Any], *, token_member: str = "nextToken") -> str | None:  # noqa: S107 - no secret
    """Return the key behind which the wanted page begins; None for the first page."""
    token = request.get(token_member)
    return decode_token(token) if token else None


def page_size(request: dict[str, Any], *, maximum: int = MAX_RESULTS, default: int | None = None) -> int:
    """Return how many items the request wants. Raises InvalidParameterException outside 1..maximum."""
    wanted = request.get("maxResults")
    if wanted is None:
        return maximum if default is None else default
    if not 1 <= wanted <= maximum:
        raise InvalidParameterException(f"maxResults must be between 1 and {maximum}, but was {wanted}.")
    size: int = wanted
    return size


def take(
    items: Iterable[T],
    request: dict[str, Any],
    *,
    key: Callable[[T], str],
    maximum: int = MAX_RESULTS,
    default: int | None = None,
) -> Page[T]:
    """Cut the wanted page off the front of `items`, which begin behind `after(request)`; reads one item more."""
    size = page_size(request, maximum=maximum, default=default)
    found = list(islice(items, size + 1))
    if len(found) <= size:
        return Page(found)
    return Page(found[:size], {"nextToken": encode_token(key(found[size - 1]))})
