"""Sending requests to API destinations: bounded in time and memory, and never where nothing may be sent."""

import socket
from types import TracebackType
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from controlplane.events.endpoint import address_problem
from controlplane.events.outgoing import Outgoing
from controlplane.events.retrying import Outcome, Verdict, retry_after, verdict_of_status
from homeport.clock import Clock

__all__ = ["TIMEOUT_S", "Sender"]

#: From the first packet to the end of the answer. AWS waits 5 seconds; the Standard Webhooks ask for 15 to 30.
TIMEOUT_S: Final = 15.0
#: Bytes of a refusal that are read, and characters of it that are kept.
_READ: Final = 1024
_KEPT: Final = 200


class Sender:
    """Sends requests, any number at once. Use as `async with`: connections are kept for the next request.

    Redirects aren't followed: where they lead is the destination's to say. Nothing of the environment (proxies,
    credentials) is used.
    """

    def __init__(self, clock: Clock, *, timeout_s: float = TIMEOUT_S) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> "Sender":
        for scheme in ("http", "https"):
            self._sessions[scheme] = aiohttp.ClientSession(
                # Each target has one request under way: the number of targets is the limit.
                connector=aiohttp.TCPConnector(resolver=_Resolver(secure=scheme == "https"), limit=0),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions.values():
            await session.close()

    async def send(self, request: Outgoing) -> Outcome:
        """Send a request once and say how it went. On cancel it may or may not have arrived."""
        scheme, host = request.url.scheme, request.url.host or ""
        if problem := address_problem(host, secure=scheme == "https"):
            return Outcome(Verdict.RETRY, problem)
        try:
            async with self._sessions[scheme].request(
                request.method, request.url, headers=request.headers, data=request.body, allow_redirects=False
            ) as response:
                return await self._outcome(response)
        except TimeoutError:
            return Outcome(Verdict.RETRY, f"no answer from {host} within {self._timeout_s:.0f} seconds")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(Verdict.RETRY, _reason(error))

    async def _outcome(self, response: aiohttp.ClientResponse) -> Outcome:
        verdict = verdict_of_status(response.status)
        if verdict is Verdict.DELIVERED:
            return Outcome(verdict)
        said = (await response.content.read(_READ)).decode(errors="replace")
        problem = f"HTTP {response.status} {response.reason or ''}".strip()
        if 300 <= response.status < 400:
            problem += f" to {response.headers.get('Location', '?'):.{_KEPT}} (redirects aren't followed)"
        elif text := " ".join("".join(letter if letter.isprintable() else " " for letter in said).split()):
            problem += f": {text:.{_KEPT}}"
        wait = retry_after(response.headers.get("Retry-After", ""), self._clock.now())
        return Outcome(verdict, problem, wait)


class _Resolver(AbstractResolver):
    """Resolves names, and leaves out addresses that nothing may be sent to."""

    def __init__(self, *, secure: bool) -> None:
        self._secure = secure
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See AbstractResolver. Raises OSError if no address is left."""
        found = await self._inner.resolve(host, port, family)
        problems = {each["host"]: address_problem(each["host"], secure=self._secure) for each in found}
        usable = [each for each in found if not problems[each["host"]]]
        if found and not usable:
            raise OSError(None, next(iter(problems.values())))
        return usable

    async def close(self) -> None:
        """See AbstractResolver."""
        await self._inner.close()


def _reason(error: Exception) -> str:
    inner: Any = getattr(error, "os_error", None)
    text = getattr(inner, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"{error.host}: {text}"
    return f"{text:.{_KEPT}}"
