"""A Docker Engine's HTTP side on a Unix socket, scripted: for what a real one can't be made to do."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

__all__ = ["Answer", "DockerApi", "docker_api", "drop", "error", "stream"]

#: What answers one request.
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class DockerApi:
    """Requests are answered from `routes`: "METHOD path" (without version) -> answers, the last of which repeats."""

    def __init__(self) -> None:
        self.routes: dict[str, list[Any]] = {"GET version": [{"ApiVersion": "1.41"}]}
        self.requests: list[web.Request] = []
        self.docker_host = ""

    def answer(self, route: str, *answers: Any) -> None:
        """Script a route. An answer is an Answer, or a JSON document (None: 204)."""
        self.routes[route] = list(answers)

    def asked(self, route: str) -> list[web.Request]:
        """Return the requests of a route so far."""
        return [request for request in self.requests if _route(request) == route]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        self.requests.append(request)
        answers = self.routes.get(_route(request))
        if answers is None:
            return web.json_response({"message": f"not scripted: {_route(request)}"}, status=501)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            return web.Response(status=204)
        if callable(answer):
            made: web.StreamResponse = await answer(request)
            return made
        return web.json_response(answer)


def _route(request: web.Request) -> str:
    head, _, rest = request.path.lstrip("/").partition("/")
    return f"{request.method} {rest if head.startswith('v1.') else request.path.lstrip('/')}"


def error(status: int, text: str) -> Answer:
    """Refuse, as the Engine does."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"message": text}, status=status)

    return answer


def drop() -> Answer:
    """Close the connection instead of answering, as a kept-alive one that has died does."""

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return answer


def stream(*documents: Any, hang: bool = False, before: asyncio.Event | None = None) -> Answer:
    """Send JSON documents, one a line, then end, or say no more. `before`: what to wait for ahead of the headers."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if before is not None:
            await before.wait()
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for document in documents:
                await response.write(json.dumps(document).encode() + b"\n")
            if hang:
                await asyncio.Event().wait()
        return response

    return answer


@contextlib.asynccontextmanager
async def docker_api(directory: Path, *, tcp: bool = False) -> AsyncIterator[DockerApi]:
    """Serve inside the block, on a socket in `directory` or on a loopback port."""
    api = DockerApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    if tcp:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        api.docker_host = f"tcp://{host}:{port}"
    else:
        socket = directory / "docker.sock"
        await web.UnixSite(runner, str(socket)).start()
        api.docker_host = f"unix://{socket}"
    try:
        yield api
    finally:
        await runner.cleanup()
