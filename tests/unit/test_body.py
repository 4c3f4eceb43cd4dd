"""Reading bodies off real connections, late and large ones."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from controlplane.api.body import MAX_BODY_BYTES, read_body
from controlplane.api.errors import ApiError

TIMEOUT_S = 0.2


class Reader:
    """A server that reads bodies and remembers what became of each."""

    def __init__(self) -> None:
        self.outcomes: asyncio.Queue[bytes | str] = asyncio.Queue()
        application = web.Application()
        application.add_routes([web.post("/", self._read)])
        self.server = TestServer(application)

    async def _read(self, request: web.Request) -> web.Response:
        try:
            self.outcomes.put_nowait(await read_body(request, timeout_s=TIMEOUT_S))
        except ApiError as error:
            self.outcomes.put_nowait(error.code)
        return web.Response()

    async def send(self, *parts: bytes, length: int | None = None) -> bytes | str:
        """Send a body in parts and return what became of it."""
        total = sum(map(len, parts)) if length is None else length
        _, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {total}\r\n\r\n".encode())
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(10):
            outcome = await self.outcomes.get()
        writer.close()
        return outcome


@pytest.fixture
async def reader() -> AsyncIterator[Reader]:
    reader = Reader()
    await reader.server.start_server()
    yield reader
    await reader.server.close()


async def test_a_body_is_read_in_pieces(reader: Reader) -> None:
    assert await reader.send(b"a" * 100_000, b"b" * 100_000) == b"a" * 100_000 + b"b" * 100_000


async def test_a_body_that_does_not_end_is_given_up(reader: Reader) -> None:
    assert await reader.send(b"half", length=8) == "RequestTimeoutException"


async def test_a_body_that_says_it_is_too_large_is_not_read(reader: Reader) -> None:
    assert await reader.send(length=MAX_BODY_BYTES + 1) == "RequestEntityTooLargeException"
