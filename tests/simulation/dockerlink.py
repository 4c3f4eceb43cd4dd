"""The connection to a simulated Engine: what aiodocker takes for an aiohttp session.

The agent's own DockerEngine stands on it, with its limits, its gates and its reading of what the Engine answers; only
the socket isn't there. A connection ends with the process that opened it.
"""

import asyncio
import contextvars
import json
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import unquote

import aiohttp
from aiodocker import Docker
from aiohttp.client_reqrep import ConnectionKey

from tests.simulation.loop import PROCESS
from tests.simulation.process import Process

__all__ = ["API_VERSION", "Answer", "Lines", "Link", "Request", "cannot_connect", "connection_lost"]

API_VERSION: Final = "1.44"
_URL: Final = "unix://localhost"
_KEY: Final = ConnectionKey("localhost", None, False, True, None, None, None)


def cannot_connect() -> aiohttp.ClientError:
    """Return what connecting fails with while nobody listens."""
    return aiohttp.ClientConnectorError(_KEY, ConnectionRefusedError(111, "Connection refused"))


def connection_lost() -> aiohttp.ClientError:
    """Return what a request ends with whose connection breaks."""
    return aiohttp.ServerDisconnectedError()


class Lines:
    """A stream of lines from the Engine: what aiohttp's StreamReader is."""

    def __init__(self, request: "Request") -> None:
        self._request = request
        self._lines: deque[bytes] = deque()
        self._error: Exception | None = None
        self._over = False
        self._news: asyncio.Future[None] | None = None

    def feed(self, line: bytes) -> bool:
        """Send a line; False if nobody reads any more."""
        if not self.open:
            return False
        self._lines.append(line)
        self._wake()
        return True

    def end(self, error: Exception | None = None) -> None:
        """Say no more; with an error, since the connection broke."""
        if not self._over:
            self._over, self._error = True, error
            self._wake()

    def close(self) -> None:
        """Leave, as a reader."""
        self._over = True

    @property
    def open(self) -> bool:
        """Whether more may come, and be read."""
        return not (self._over or self._request.gone)

    async def readline(self) -> bytes:
        """Return the next line; nothing at the end. Raises as aiohttp does if the connection broke."""
        while not self._lines and not self._over:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        if self._lines:
            return self._lines.popleft()
        if self._error is not None:
            raise self._error
        return b""

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


class Answer:
    """An answer of the Engine: what aiohttp's ClientResponse is, as far as aiodocker and the agent know it."""

    def __init__(self, status: int, document: Any = None, *, lines: Lines | None = None) -> None:
        self.status = status
        self.headers = {} if document is None else {"content-type": "application/json"}
        self.content = lines
        self._document = document

    async def json(self, *, encoding: str = "utf-8") -> Any:
        """Return the document."""
        return self._document

    async def read(self) -> bytes:
        """Return the body."""
        return b"" if self._document is None else json.dumps(self._document).encode()

    async def text(self) -> str:
        """Return the body."""
        return (await self.read()).decode()

    def close(self) -> None:
        """Close the connection."""
        if self.content is not None:
            self.content.close()


class Request:
    """A request, from when it is sent until its answer has come. `lines`: the stream that it is answered with."""

    def __init__(self, method: str, path: str, params: dict[str, str], body: Any) -> None:
        self.method = method
        self.path = path
        self.params = params
        self.body = body
        self.answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.lines: Lines | None = None
        self._process: Process | None = PROCESS.get()
        self._left = False

    @property
    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._left or (self._process is not None and not self._process.alive)

    @property
    def over(self) -> bool:
        """Whether nothing will come any more that anybody waits for."""
        return not self.lines.open if self.lines is not None else self.gone or self.answered.done()

    def answer(self, answer: Answer) -> None:
        """Answer, if anybody still waits."""
        if not self.answered.done():
            self.answered.set_result(answer)

    def lose(self) -> None:
        """The connection breaks."""
        if self.lines is not None:
            self.lines.end(aiohttp.ClientPayloadError("Response payload is not completed"))
        if not self.answered.done():
            self.answered.set_exception(connection_lost())

    async def wait(self) -> Answer:
        """Wait for the answer; whoever stops waiting has left."""
        try:
            return await self.answered
        except BaseException:
            self._left = True
            raise


class Link:
    """What aiodocker sends its requests through. `accept` takes each; it raises what connecting fails with."""

    def __init__(self, accept: Callable[[Request], None]) -> None:
        self._accept = accept

    def client(self) -> Docker:
        """Return an aiodocker client on this link."""
        return Docker(
            _URL,
            connector=cast(aiohttp.BaseConnector, self),
            session=cast(aiohttp.ClientSession, self),
            api_version=f"v{API_VERSION}",
        )

    async def request(
        self, method: str, url: object, *, params: Any = None, data: bytes | None = None, **_options: Any
    ) -> Answer:
        """See aiohttp.ClientSession."""
        path = unquote(str(url).removeprefix(f"{_URL}/").removeprefix(f"v{API_VERSION}/"))
        request = Request(method, path, dict(params or {}), json.loads(data) if data else {})
        # What the Engine does about it, it does on its own behalf.
        contextvars.Context().run(self._accept, request)
        return await request.wait()
