"""The line to the Engine: aiodocker with its traps covered. The one module that knows aiodocker's errors.

What holds here:
- every call ends within its limit, as a result or as one of `errors.py`;
- a call whose kept-alive connection turns out to be dead is repeated once on a new one (every verb is idempotent);
- a stream's connection is closed when its block is left, however it is left.

Not being able to connect is `DockerError(900)` in aiodocker, a timeout isn't wrapped at all, and a connection that
breaks in the middle of an answer comes as an error of aiohttp.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Final, TypeVar

import aiohttp
from aiodocker import Docker, DockerError
from multidict import CIMultiDict

from agent.engine.errors import Conflict, EngineError, EngineTimeout, EngineUnavailable, NotFound, Rejected

__all__ = ["DEFAULT_DOCKER_HOST", "Observe", "Transport", "docker_host_of", "translate"]

DEFAULT_DOCKER_HOST: Final = "unix:///var/run/docker.sock"

T = TypeVar("T")

#: Told of every call: its name, how long it took in seconds, and "ok" or the name of the error.
Observe = Callable[[str, float, str], None]

_CANNOT_CONNECT: Final = 900
#: Parts of the Engine's 5xx texts that mean its own runtime, containerd, is away: nothing is said of the container.
_RUNTIME_AWAY: Final = ("error while dialing", "transport is closing", "error reading from server", "ttrpc: closed")
#: A line of a JSON stream may be this long: an event carries all labels of its container.
_LINE_BYTES: Final = 4 * 1024 * 1024


def docker_host_of(docker_host: str | None, environment: Mapping[str, str] | None = None) -> str:
    """Return the Engine's address: the one given, else DOCKER_HOST, else the usual socket."""
    environment = os.environ if environment is None else environment
    return docker_host or environment.get("DOCKER_HOST") or DEFAULT_DOCKER_HOST


def translate(error: Exception, docker_host: str) -> EngineError:
    """Return the error of ours that says what an error of aiodocker or aiohttp means."""
    cause = error.__context__ if isinstance(error, DockerError) and error.status == _CANNOT_CONNECT else error
    if isinstance(cause, aiohttp.ClientConnectorError):
        return EngineUnavailable(f"Cannot connect to the Docker Engine at {docker_host}: {cause.strerror}")
    if not isinstance(error, DockerError):
        return EngineUnavailable(f"The connection to the Docker Engine broke: {str(error) or type(error).__name__}")
    text = error.message.strip()
    match error.status:
        case 900:
            return EngineUnavailable(text)
        case 404:
            return NotFound(text)
        case 409:
            return Conflict(text)
        case status if status >= 500 and any(part in text.lower() for part in _RUNTIME_AWAY):
            return EngineUnavailable(text)
        case _:
            return Rejected(text)


def _is_broken_connection(error: Exception) -> bool:
    """Whether a connection was there and broke, rather than that none could be made."""
    cause = error.__context__ if isinstance(error, DockerError) and error.status == _CANNOT_CONNECT else error
    return isinstance(cause, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError) and not isinstance(
        cause, aiohttp.ClientConnectorError
    )


class Transport:
    """An open line to one Engine; use as `async with`. Opening does no I/O: an Engine that is down is no error yet.

    `client`: one that is open already, and its maker's to close.
    """

    def __init__(self, docker_host: str, *, observe: Observe | None = None, client: Docker | None = None) -> None:
        self._docker_host = docker_host
        self._observe = observe
        self._given = client is not None
        self._docker = client
        self._connector: aiohttp.BaseConnector | None = None

    async def __aenter__(self) -> "Transport":
        if self._given:
            return self
        url = self._docker_host
        if url.startswith("unix://"):
            # No limit of connections: followed logs must never hold up a stop. Kinds of calls have their own limits.
            self._connector = aiohttp.UnixConnector(url.removeprefix("unix://"), limit=0)
            url = "unix://localhost"
        self._docker = Docker(url, connector=self._connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._docker is not None and not self._given:
            await self._docker.close()
        if self._connector is not None:
            await self._connector.close()

    @property
    def docker(self) -> Docker:
        """The client."""
        assert self._docker is not None, "the transport is not open"
        return self._docker

    async def call(self, name: str, limit_s: float, act: Callable[[Docker], Awaitable[T]], *, subject: str = "") -> T:
        """Run one idempotent call within `limit_s` seconds. Raises only EngineErrors.

        On cancel it may have happened.
        """
        with self._observed(name):
            try:
                async with asyncio.timeout(limit_s):
                    try:
                        return await act(self.docker)
                    except (DockerError, aiohttp.ClientError) as error:
                        if not _is_broken_connection(error):
                            raise
                    return await act(self.docker)
            except TimeoutError as error:
                what = f"{name} {subject}".strip()
                raise EngineTimeout(f"{what}: no answer from the Docker Engine within {limit_s:g} s") from error
            except (DockerError, aiohttp.ClientError, OSError) as error:
                raise translate(error, self._docker_host) from error
            except (ValueError, KeyError, TypeError) as error:
                # What aiodocker raises for an answer that isn't JSON, or not in the Engine's shape.
                raise EngineUnavailable(f"{self._docker_host} doesn't answer as a Docker Engine: {error}") from error

    @contextlib.asynccontextmanager
    async def stream(
        self,
        name: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        open_s: float,
        headers: Mapping[str, str] | None = None,
        buffer: int = _LINE_BYTES,
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """Open a stream and give its reader once the Engine has answered with headers.

        Raises EngineErrors on opening and for a connection that breaks inside the block. Timeouts inside are the
        block's own business. `buffer`: about how many bytes are read ahead of the block.
        """
        response = await self.call(
            name, open_s, lambda docker: self._open(docker, method, path, params, headers, buffer), subject=path
        )
        try:
            yield response.content
        except (aiohttp.ClientError, asyncio.IncompleteReadError) as error:
            raise translate(error, self._docker_host) from error
        finally:
            # Not `release`: that would wait for the end of what may be endless.
            response.close()

    async def _open(
        self,
        docker: Docker,
        method: str,
        path: str,
        params: Mapping[str, str],
        headers: Mapping[str, str] | None,
        buffer: int,
    ) -> aiohttp.ClientResponse:
        response = await docker.session.request(
            method,
            f"{docker.docker_host}/{path}",
            params=params,
            headers=CIMultiDict(headers or {}),
            timeout=aiohttp.ClientTimeout(),
            read_bufsize=buffer,
        )
        if response.status < 400:
            return response
        try:
            raw = await response.text()
        finally:
            response.close()
        raise DockerError(response.status, _message(raw))

    @contextlib.contextmanager
    def _observed(self, name: str) -> Iterator[None]:
        if self._observe is None:
            yield
            return
        began = time.monotonic()
        outcome = "cancelled"
        try:
            yield
            outcome = "ok"
        except EngineError as error:
            outcome = type(error).__name__
            raise
        finally:
            self._observe(name, time.monotonic() - began, outcome)


def _message(raw: str) -> str:
    """Return the text of an error body: `{"message": ...}`, or whatever it is."""
    try:
        return str(json.loads(raw)["message"])
    except (ValueError, KeyError, TypeError):
        return raw
