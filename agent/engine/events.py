"""The Engine's event stream, made fit to be relied on.

aiodocker's own subscription may connect after it has returned, buffers without bound, and ends quietly when the
connection drops. Here the stream is read straight from the connection, so the buffer is the socket's; it is opened
again whenever it ends, from the last event on (`since`), and a `resync` tells the reader each time that events may be
missing. What the Engine itself drops (its memory holds 256 events, and none across its own restart; readers that are
too slow lose some) is healed by the `resync`s.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Final

import aiohttp
import structlog

from agent.engine.api import EngineEvent
from agent.engine.errors import EngineError, EngineUnavailable
from agent.engine.facts import EVENT_ACTIONS, engine_event, event_nanoseconds
from agent.engine.limits import Limits
from agent.engine.transport import Transport
from homeport.clock import Clock

__all__ = ["watch_events"]

_log = structlog.get_logger(__name__)

_NS: Final = 1_000_000_000


async def watch_events(
    transport: Transport, labels: Mapping[str, str], *, limits: Limits, clock: Clock
) -> AsyncGenerator[EngineEvent]:
    """Yield events of containers with these labels for ever; see `Engine.events`. Never raises for the Engine's sake.

    While the Engine is away nothing is yielded. Close the iterator to close the stream.
    """
    seen_ns = 0
    told = ""
    pause_s = limits.events_retry_min_s
    while True:
        try:
            async with transport.stream(
                "events", "GET", "events", params=_params(labels, seen_ns), open_s=limits.open_s
            ) as reader:
                pause_s = limits.events_retry_min_s
                told = ""
                yield EngineEvent(kind="resync", at=clock.now())
                stream = _EventReader(reader, limits)
                async for document in stream:
                    seen_ns = max(seen_ns, event_nanoseconds(document))
                    if (event := engine_event(document)) is not None:
                        yield event
                if stream.ended_by_age:
                    continue
        except EngineError as error:
            if str(error) != told:
                # Said once: an Engine that stays away for days must not fill the log.
                told = str(error)
                _log.warning("The Docker Engine's event stream broke; opening it again", reason=told)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, limits.events_retry_max_s)


class _EventReader:
    """Iterates over the documents of one open stream, until it ends, gets old, or its reader has been away."""

    def __init__(self, reader: aiohttp.StreamReader, limits: Limits) -> None:
        self._reader = reader
        self._stall_s = limits.events_stall_s
        self._now = asyncio.get_running_loop().time
        self._deadline = self._now() + limits.events_age_s
        self._given_at: float | None = None
        self.ended_by_age = False

    def __aiter__(self) -> "_EventReader":
        return self

    async def __anext__(self) -> dict[str, object]:
        if self._given_at is not None and self._now() - self._given_at > self._stall_s:
            self.ended_by_age = True
            raise StopAsyncIteration
        try:
            async with asyncio.timeout_at(self._deadline):
                line = await self._reader.readline()
        except TimeoutError:
            self.ended_by_age = True
            raise StopAsyncIteration from None
        except ValueError as error:
            raise EngineUnavailable(f"an event is too long: {error}") from error
        if not line.endswith(b"\n"):
            # The end, maybe in the middle of an event: the next stream tells that one whole.
            raise StopAsyncIteration
        self._given_at = self._now()
        document: dict[str, object] = json.loads(line)
        return document


def _params(labels: Mapping[str, str], seen_ns: int) -> dict[str, str]:
    """Let the Engine filter: else each run of a health check would be three events to read."""
    filters = {
        "type": ["container"],
        "event": list(EVENT_ACTIONS),
        "label": [f"{name}={value}" for name, value in labels.items()],
    }
    params = {"filters": json.dumps(filters)}
    if seen_ns:
        params["since"] = f"{seen_ns // _NS}.{seen_ns % _NS:09d}"
    return params
