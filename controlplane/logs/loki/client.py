"""Loki's HTTP API, as far as the store needs it."""

import base64
import ssl
from typing import Any, Final, Literal

import aiohttp
import msgspec

from controlplane.logs.loki.address import LokiAddress
from controlplane.logs.loki.entries import Found, found_in

__all__ = ["PAGE", "LokiAway", "LokiClient", "LokiError", "LokiRefused"]

#: Loki's default for the entries of one query.
PAGE: Final = 5000
_PUSH_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=5)
_QUERY_TIMEOUT: Final = aiohttp.ClientTimeout(total=60, connect=5)
#: How much of an error's text is passed on.
_SAID: Final = 300

#: What Loki says of an entry that it will never take: too old or too new, or too long.
_NEVER: Final = (
    "timestamp too old",
    "timestamp too new",
    "too far behind",
    "out of order",
    "Max entry size",
)


class LokiError(Exception):
    """Loki didn't do it; the text says why, for users."""


class LokiAway(LokiError):
    """Not now: Loki can't be reached, is overloaded, or isn't set up for it."""


class LokiRefused(LokiError):
    """Some of the entries of a push, never; the others were taken."""


class _Stream(msgspec.Struct):
    stream: dict[str, str]
    values: list[list[Any]]


class _Data(msgspec.Struct):
    result: list[_Stream]


class _Answer(msgspec.Struct):
    data: _Data


class LokiClient:
    """Give it a session with `open`, and end that with `close`. Every call raises LokiAway."""

    def __init__(self, address: LokiAddress) -> None:
        self.address = address
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Make ready to call. Raises OSError, ssl.SSLError for a file of authorities that can't be read."""
        if self._session is not None:
            return
        address = self.address
        headers = {"X-Scope-OrgID": address.tenant} if address.tenant else {}
        if address.user:
            packed = base64.b64encode(f"{address.user}:{address.password}".encode()).decode()
            headers["Authorization"] = f"Basic {packed}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=address.ca) if address.ca else True),
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def push(self, body: bytes) -> None:
        """Push what `push_body` has made. Raises LokiRefused."""
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        status, said = await self._call("POST", "/loki/api/v1/push", _PUSH_TIMEOUT, data=body, headers=headers)
        if status == 400 and any(reason in said for reason in _NEVER):
            raise LokiRefused(said[:_SAID])
        self._check(status, said)

    async def query(
        self, selector: str, start_ns: int, end_ns: int, *, limit: int, direction: Literal["forward", "backward"]
    ) -> tuple[list[Found], int]:
        """Return entries with `start_ns` <= time < `end_ns`, from one end of that, in no order; and their
        number, which counts those that Homeport didn't write.
        """
        parameters = {
            "query": selector,
            "start": str(start_ns),
            "end": str(end_ns),
            "limit": str(limit),
            "direction": direction,
        }
        # Else each combination of metadata would be a stream of its own.
        headers = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
        status, said = await self._call(
            "GET", "/loki/api/v1/query_range", _QUERY_TIMEOUT, params=parameters, headers=headers
        )
        self._check(status, said)
        try:
            answer = msgspec.json.decode(said, type=_Answer)
        except msgspec.MsgspecError as error:
            raise LokiAway(
                f"{self.address.url} answers a query with something else than Loki would: {error}"
            ) from error
        streams = answer.data.result
        entries = [entry for stream in streams for entry in found_in(stream.stream, stream.values)]
        return entries, sum(len(stream.values) for stream in streams)

    async def delete(self, selector: str, start_s: int, end_s: int) -> bool:
        """Ask for the deletion of all entries of some streams. False: this Loki doesn't delete."""
        parameters = {"query": selector, "start": str(start_s), "end": str(end_s)}
        status, said = await self._call("POST", "/loki/api/v1/delete", _PUSH_TIMEOUT, params=parameters)
        if 400 <= status < 500 and status != 429:
            return False
        self._check(status, said)
        return True

    async def _call(self, method: str, path: str, timeout: aiohttp.ClientTimeout, **how: Any) -> tuple[int, str]:
        assert self._session is not None
        url = self.address.url + path
        try:
            async with self._session.request(method, url, timeout=timeout, allow_redirects=False, **how) as response:
                return response.status, await response.text()
        except (aiohttp.ClientError, OSError, UnicodeDecodeError) as error:
            why = "it doesn't answer in time" if isinstance(error, TimeoutError) else str(error)
            raise LokiAway(f"Loki at {self.address.url} can't be reached: {why or type(error).__name__}") from error

    def _check(self, status: int, said: str) -> None:
        if not 200 <= status < 300:
            raise LokiAway(f"Loki at {self.address.url} refuses with HTTP {status}: {said.strip()[:_SAID]}")
