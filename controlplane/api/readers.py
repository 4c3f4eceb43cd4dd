"""Readers of answers that go on: how many there may be at once, and their end when the control plane stops."""

import asyncio
from collections.abc import Awaitable

from aiohttp import web

from controlplane.api.errors import ApiError

__all__ = ["Readers"]


class Readers:
    """Keep `run()` running: when it ends, readers are cut off. Those that can, come back to the next control plane."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: set[asyncio.Task[object]] = set()
        self._stopping = False

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._tasks)

    async def run(self) -> None:
        """Wait until cancelled, then cut all readers off."""
        try:
            await asyncio.Event().wait()
        finally:
            self._stopping = True
            for task in self._tasks:
                task.cancel()

    def check(self) -> None:
        """Raise ApiError if there can't be another one."""
        if self._stopping:
            raise ApiError("The control plane is stopping.", code="ServiceUnavailableException", status=503)
        if len(self._tasks) >= self._most:
            raise ApiError(
                f"There are {self._most} readers already, which is the limit.",
                code="LimitExceededException",
                status=503,
            )

    async def serve(self, request: web.Request, answer: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        """Return the answer, written in the caller's task, that of the request. It is cut off if `run` ends before."""
        task = asyncio.current_task()
        assert task is not None, "a handler runs in a task"
        self._tasks.add(task)
        try:
            return await answer
        except asyncio.CancelledError:
            if not self._stopping or request.transport is None:
                raise
            # It was `run`. What is read isn't over, so the answer mustn't end in order.
            task.uncancel()
            request.transport.abort()
            return web.Response(status=503)
        finally:
            self._tasks.discard(task)
