"""Hot paths for the test of how they are measured: two that cost the same, and one that costs half as much again."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from bench.hotpaths.model import Path, Round
from bench.hotpaths.reference import REFERENCE

__all__ = ["PATHS"]

_OPERATIONS = 200


def _of(work: int) -> Callable[[], AbstractAsyncContextManager[Round]]:
    @asynccontextmanager
    async def prepare() -> AsyncIterator[Round]:
        words = ["work"] * work

        async def once() -> None:
            for _ in range(_OPERATIONS):
                sum(len(word) for word in words)

        yield once

    return prepare


_WORK = {"work": 200, "the same work": 200, "half as much again": 300}
PATHS = (REFERENCE, *(Path(name, _OPERATIONS, _of(work)) for name, work in _WORK.items()))
