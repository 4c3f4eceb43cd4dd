"""An API client that costs little: requests signed once and sent as often as one likes, over aiohttp."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

from bench.common import Json, signed
from tests.e2e.harness import Installation

__all__ = ["Client", "Request", "connected"]

_TARGET: Final = "AmazonEC2ContainerServiceV20141113."
#: Connections that load comes from; few, as from a deploy pipeline or two.
_CONNECTIONS: Final = 16


class Request:
    """A signed request. Signatures hold for five minutes."""

    def __init__(self, homeport: Installation, operation: str, body: Json) -> None:
        key = json.loads((homeport.directory / "cp/controlplane/credentials.json").read_text())
        self.url = homeport.endpoint["local_url"]
        self.headers, self.text = signed(
            self.url, _TARGET + operation, body, key_id=key["access_key_id"], secret=key["secret_access_key"]
        )


class Client:
    """Sends requests; an answer that isn't 200 is an error."""

    def __init__(self, http: aiohttp.ClientSession, homeport: Installation) -> None:
        self._http = http
        self._homeport = homeport

    async def call(self, operation: str, **body: object) -> Json:
        """Sign, send, and return the answer."""
        return await self.send(self.request(operation, **body))

    def request(self, operation: str, **body: object) -> Request:
        """Sign a request, to be sent."""
        return Request(self._homeport, operation, body)

    async def send(self, request: Request) -> Json:
        """Send a request and return the answer."""
        async with self._http.post(request.url + "/", data=request.text, headers=request.headers) as answer:
            document: Json = await answer.json(content_type=None)
            assert answer.status == 200, document
            assert not document.get("failures"), document["failures"][:1]
            return document

    async def send_many(self, request: Request, times: int) -> None:
        """Send a request this often, over several connections, each waiting for its answer."""
        left = iter(range(times))

        async def send(numbers: Iterator[int]) -> None:
            for _ in numbers:
                await self.send(request)

        async with asyncio.TaskGroup() as group:
            for _ in range(_CONNECTIONS):
                group.create_task(send(left))


@asynccontextmanager
async def connected(homeport: Installation) -> AsyncIterator[Client]:
    """Yield a client of the installation's control plane."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield Client(http, homeport)
