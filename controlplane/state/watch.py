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


class Watch:
    """Every commit after the snapshot, once, in order. Use as `async with` or `async for`; `close` ends it."""

    def __init__(self, *, capacity: int, on_close: Callable[["Watch"], None]) -> None:
        self._capacity = capacity
        self._on_close = on_close
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
        else:
            self._commits.append(commit)
        self._wake.set()

    async def next_batch(self) -> list[Commit]:
        """Wait for commits and return all that are there.

        Raises WatchOverflow if the watcher was cut off. On cancel nothing is lost.
        """
        await self._wake.wait()
        if self._overflown:
            raise WatchOverflow
        batch = list(self._commits)
        self._commits.clear()
        if not self._closed:
            self._wake.clear()
        return batch

    async def __aiter__(self) -> AsyncIterator[Commit]:
        while not self._closed or self._commits:
            for commit in await self.next_batch():
                yield commit

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
