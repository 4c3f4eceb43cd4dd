"""Waiting for work in a thread, which can't be cancelled."""

import asyncio
from typing import TypeVar

__all__ = ["finish"]

T = TypeVar("T")


async def finish(future: "asyncio.Future[T]") -> asyncio.CancelledError | None:
    """Wait until `future` is done, come what may; return the cancel that came meanwhile, for the caller to raise."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled
