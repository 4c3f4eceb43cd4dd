"""Watching the state: a bounded stream of commits that begins exactly where a snapshot was taken."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from controlplane.store.api import Commit

__all__ = ["Watch", "WatchOverflow"]

#: Commits a watcher may lag behind before it is cut off. A commit is small; a burst of 200 RunTasks is 200 commits.
DEFAULT_CAPACITY: Final = 100_000


class WatchOverflow(Exception):
    """The watcher fell behind its bound and was cut off: take a new snapshot and watch from there."""


class Watch(AsyncIterator[Commit]):
    """Every commit after the snapshot, once, in order. Iterate with `async for`, or take `next_batch`es.

    Use as `with`, or `close` it: an open watch is kept filled.
    """

    def __init__(self, *, capacity: int, on_close: Callable[["Watch"], None], on_overflow: Callable[[], None]) -> None:
        self._capacity = capacity
        self._on_close = on_close
        self._on_overflow = on_overflow
        self._commits: deque[Commit] = deque()
        self._wake = asyncio.Event()
        self._overflown = False
        self._closed = False

    def offer(self, commit: Commit) -> None:
        """Take a commit. For `State` alone."""
        if self._overflown or self._closed:
            return
        if len(self._commits) >= self._capacity:
            self._overflown = True
            self._commits.clear()
            self._on_overflow()
        else:
            self._commits.append(commit)
        self._wake.set()

    @property
    def pending(self) -> int:
        """How many commits are there to be taken."""
        return len(self._commits)

    async def next_batch(self) -> list[Commit]:
        """Wait for commits and return all that are there; nothing only if the watch is closed.

        Raises WatchOverflow if the watcher was cut off. On cancel nothing is lost.
        """
        await self._wait()
        batch = list(self._commits)
        self._commits.clear()
        return batch

    def __aiter__(self) -> AsyncIterator[Commit]:
        return self

    async def __anext__(self) -> Commit:
        await self._wait()
        if not self._commits:
            raise StopAsyncIteration
        return self._commits.popleft()

    async def _wait(self) -> None:
        """Wait until there is a commit or the watch is closed."""
        while not (self._commits or self._closed or self._overflown):
            self._wake.clear()
            await self._wake.wait()
        if self._overflown:
            raise WatchOverflow

    def close(self) -> None:
        """End the watch; iteration ends after what is already there."""
        if not self._closed:
            self._closed = True
            self._on_close(self)
            self._wake.set()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
