"""Running something beside a test."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["background"]


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> "AsyncIterator[asyncio.Task[None]]":
    """Run `work` within the block and cancel it at the end. What it raises fails the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        yield task
        task.cancel()
