"""A hot path as it is measured: something that can be done again and again, at the same cost each time."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

__all__ = ["Path", "Round"]

#: Does a path's work once more.
Round = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Path:
    """One hot path: `prepare` sets the scene and gives what does a round; `operations`: how many a round has."""

    name: str
    operations: int
    prepare: Callable[[], AbstractAsyncContextManager[Round]]
