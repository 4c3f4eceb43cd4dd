"""An HTTP endpoint that events are sent to: it remembers what it was sent, and answers as a test says."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

__all__ = ["Delivered", "Endpoint", "serve_endpoint"]


@dataclass(frozen=True)
class Delivered:
    """One request as it arrived, and what it was answered with."""

    method: str
    path_qs: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def number(self) -> int:
        """The `n` of the detail of the event that it brought."""
        return int(msgspec.json.decode(self.body)["detail"]["n"])


@dataclass
class Endpoint:
    """Answers with the next of `answers`, (status, headers), and with 200 when there is none left."""

    url: str = ""
    requests: list[Delivered] = field(default_factory=list)
    answers: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    #: Cleared: requests are held, unanswered.
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def then(self, *statuses: int, **headers: str) -> None:
        """Answer so next, in this order."""
        self.answers.extend(
            (status, {name.replace("_", "-"): value for name, value in headers.items()}) for status in statuses
        )

    @property
    def accepted(self) -> list[int]:
        """The numbers of the events that were answered with 200, in order."""
        return [request.number for request in self.requests if request.status == 200]

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        await self.open.wait()
        status, headers = self.answers.popleft() if self.answers else (200, {})
        self.requests.append(Delivered(request.method, request.path_qs, dict(request.headers), body, status))
        return web.Response(status=status, headers=headers, text="" if status == 200 else "the endpoint says no")


@asynccontextmanager
async def serve_endpoint() -> AsyncIterator[Endpoint]:
    """Serve an endpoint on a port of the loopback address."""
    endpoint = Endpoint()
    endpoint.open.set()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", endpoint.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield endpoint
    finally:
        endpoint.open.set()
        await runner.cleanup()
