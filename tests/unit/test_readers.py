"""Readers of answers that go on: how many, and until when."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from controlplane.api.errors import ApiError
from controlplane.api.readers import Readers


async def lasting(begun: asyncio.Event) -> web.StreamResponse:
    begun.set()
    await asyncio.Event().wait()
    raise AssertionError("it never ends")


async def test_there_are_so_many_at_once() -> None:
    readers, begun = Readers(1), asyncio.Event()
    readers.check()
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(readers.serve(make_mocked_request("GET", "/"), lasting(begun)))
        await begun.wait()
        with pytest.raises(ApiError, match="1 readers already") as caught:
            readers.check()
        assert caught.value.code == "LimitExceededException"
        reader.cancel()
    readers.check()


async def test_they_are_cut_off_at_the_end() -> None:
    readers, begun = Readers(1), asyncio.Event()
    request = make_mocked_request("GET", "/")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(readers.run())
        reader = group.create_task(readers.serve(request, lasting(begun)))
        await begun.wait()
        running.cancel()
        assert (await reader).status == 503
    assert request.transport.abort.called  # type: ignore[union-attr]  # a mock
    with pytest.raises(ApiError, match="is stopping"):
        readers.check()
