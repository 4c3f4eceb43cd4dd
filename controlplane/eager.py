"""Coroutines that begin at once, as eager tasks do from Python 3.12 on: most of them never have to wait.

A task costs more than sending a small frame does, and a coroutine that ends before its first wait needs none.
"""

import types
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any

__all__ = ["begin"]


def begin(work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None] | None:
    """Run `work` up to its first wait. None if that was all; else what is left of it, to be run as a task.

    What it raises is raised by what is left, so the caller never meets it. The part that runs at once belongs to no
    task of its own: it must not ask for the current one, as `asyncio.timeout` does.
    """
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    except Exception as error:  # noqa: BLE001 - raised again by what is left
        return _failed(error)
    return _rest(work, waits_for)


async def _failed(error: Exception) -> None:
    raise error


@types.coroutine
def _rest(work: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    while True:
        try:
            found = yield waits_for
        except BaseException as error:  # noqa: BLE001 - a cancel above all: it is for `work`
            resume = partial(work.throw, error)
        else:
            resume = partial(work.send, found)
        try:
            waits_for = resume()
        except StopIteration:
            return
