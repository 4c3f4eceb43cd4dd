"""Fetching images: one pull per image at a time, bounded by silence and in all, with its progress told."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import msgspec
from aiodocker.utils import compose_auth_header

from agent.engine.api import ImageFacts, PullProgress
from agent.engine.errors import EngineError, EngineTimeout, EngineUnavailable, Rejected
from agent.engine.limits import Limits
from agent.engine.transport import Transport

__all__ = ["ProgressSum", "Pulls", "RegistryAuth", "registry_of", "split_reference"]

#: Progress is told at most this often.
_TELL_EVERY_S: Final = 1.0

OnProgress = Callable[[PullProgress], None]


class RegistryAuth(msgspec.Struct, frozen=True, kw_only=True):
    """Who we are at a private registry."""

    username: str
    password: str


def split_reference(reference: str) -> tuple[str, str]:
    """Return what to ask the Engine for: (fromImage, tag). A bare name means `latest`, not every tag there is."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    head, slash, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    return head + slash + name, tag or "latest"


def registry_of(image: str) -> str | None:
    """Return the registry an image name means: a first part that looks like a host, else None, the Engine's own."""
    head, slash, _ = image.partition("/")
    return head if slash and ("." in head or ":" in head or head == "localhost") else None


class ProgressSum:
    """Adds up the layers' progress, as the Engine tells it line by line."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}

    def add(self, message: dict[str, Any]) -> PullProgress | None:
        """Take one message; return the sum if it changed."""
        layer, status = message.get("id"), message.get("status")
        if not layer:
            return None
        if status == "Downloading":
            detail = message.get("progressDetail") or {}
            current = int(detail.get("current") or 0)
            self._layers[layer] = (current, int(detail.get("total") or 0) or current)
        elif status == "Download complete" and layer in self._layers:
            total = self._layers[layer][1]
            self._layers[layer] = (total, total)
        else:
            return None
        return PullProgress(
            done_bytes=sum(done for done, _ in self._layers.values()),
            total_bytes=sum(total for _, total in self._layers.values()),
        )


class _Flight:
    """A pull under way, and who wants to hear of it."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.result: ImageFacts | None = None
        self.error: EngineError | None = None
        self.listeners: list[OnProgress] = []

    def tell(self, progress: PullProgress) -> None:
        for listener in self.listeners:
            listener(progress)


class Pulls:
    """All pulls of one Engine. `look_up` gives the image's facts after a pull."""

    def __init__(self, transport: Transport, limits: Limits, look_up: Callable[[str], Any]) -> None:
        self._transport = transport
        self._limits = limits
        self._look_up = look_up
        self._gate = asyncio.Semaphore(limits.pulls)
        self._flights: dict[tuple[str, RegistryAuth | None], _Flight] = {}

    async def pull(self, reference: str, *, progress: OnProgress | None, auth: RegistryAuth | None) -> ImageFacts:
        """Pull an image, or join the pull of it that is under way, sharing its outcome.

        When the caller that leads is cancelled, one of those who joined leads a new pull; the Engine keeps the layers
        that are done. Raises EngineErrors.
        """
        key = (reference, auth)
        while (flight := self._flights.get(key)) is not None:
            if progress is not None:
                flight.listeners.append(progress)
            try:
                await flight.over.wait()
            finally:
                if progress is not None:
                    flight.listeners.remove(progress)
            if flight.error is not None:
                raise flight.error
            if flight.result is not None:
                return flight.result
        flight = self._flights[key] = _Flight()
        if progress is not None:
            flight.listeners.append(progress)
        try:
            flight.result = await self._lead(reference, auth, flight.tell)
        except EngineError as error:
            flight.error = error
            raise
        finally:
            del self._flights[key]
            flight.over.set()
        return flight.result

    async def _lead(self, reference: str, auth: RegistryAuth | None, tell: OnProgress) -> ImageFacts:
        async with self._gate:
            try:
                async with asyncio.timeout(self._limits.pull_total_s):
                    await self._fetch(reference, auth, tell)
            except TimeoutError as error:
                raise EngineTimeout(f"pull {reference}: not done within {self._limits.pull_total_s:g} s") from error
        facts: ImageFacts | None = await self._look_up(reference)
        if facts is None:
            # The progress stream just ends when the Engine goes away in the middle of a pull.
            raise EngineUnavailable(f"pull {reference}: the Docker Engine ended the pull without an image or an error")
        return facts

    async def _fetch(self, reference: str, auth: RegistryAuth | None, tell: OnProgress) -> None:
        image, tag = split_reference(reference)
        headers = {}
        if auth is not None:
            headers["X-Registry-Auth"] = compose_auth_header(
                {"username": auth.username, "password": auth.password}, registry_of(image)
            )
        async with self._transport.stream(
            "pull",
            "POST",
            "images/create",
            params={"fromImage": image, "tag": tag},
            headers=headers,
            open_s=self._limits.pull_begin_s,
        ) as reader:
            await self._follow(reference, reader, tell)

    async def _follow(self, reference: str, reader: aiohttp.StreamReader, tell: OnProgress) -> None:
        now = asyncio.get_running_loop().time
        progress = ProgressSum()
        told_at = float("-inf")
        while line := await self._next_line(reference, reader):
            if not line.endswith(b"\n"):
                raise EngineUnavailable(f"pull {reference}: the Docker Engine broke off in the middle of a message")
            message = json.loads(line)
            # Engines up to 28 tell an error twice, later ones only in errorDetail.
            if (error := message.get("errorDetail") or message.get("error")) is not None:
                raise Rejected(str(error.get("message") if isinstance(error, dict) else error))
            if (sums := progress.add(message)) is not None and now() - told_at >= _TELL_EVERY_S:
                told_at = now()
                tell(sums)

    async def _next_line(self, reference: str, reader: aiohttp.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self._limits.pull_idle_s):
                return await reader.readline()
        except TimeoutError as error:
            raise EngineTimeout(f"pull {reference}: no progress for {self._limits.pull_idle_s:g} s") from error
