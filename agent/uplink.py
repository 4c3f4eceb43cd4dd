"""The uplink: the one part of the agent that knows the control plane. It keeps a session open for as long as it runs.

What always holds:
 - any doubt ends the whole session; the next one begins with a complete set and every report not yet acknowledged;
 - losing the control plane changes nothing for containers: only `Goodbye(final)` stops tasks;
 - reconnects are spread by full jitter, so that a fleet doesn't return all at once.
"""

import asyncio
import itertools
import random as random_module
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import aiohttp
import structlog

from agent.identity import Identity, tls_context
from agent.session import AgentSession, SessionEnded, SessionSocket
from agent.workload import Workload
from homeport.clock import Clock
from homeport.errors import ProtocolError
from homeport.protocol import PATH_SESSION, Goodbye

__all__ = ["LASTED_S", "Connect", "Uplink", "leaves", "pause_s"]

_log: Final = structlog.get_logger(__name__)

#: Seconds from connecting to Welcome. A control plane that serves thousands of returning hosts takes its time.
CONNECT_TIMEOUT_S: Final = 20.0
#: The first reconnect waits up to this many seconds, each further one up to twice as long, up to the cap.
BACKOFF_BASE_S: Final = 0.1
BACKOFF_CAP_S: Final = 8.0
#: A session that lasted this long starts the backoff anew.
LASTED_S: Final = 10.0
#: The longest wait that the control plane may ask for.
RETRY_AFTER_CAP_S: Final = 600.0
#: A complete set of a large host. The control plane is trusted; this only bounds what a mistake could cost.
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024

_FAILURES: Final = (aiohttp.ClientError, OSError, ProtocolError)

#: Connects with a server (a base URL); the socket is closed on leaving. Raises one of _FAILURES.
Connect = Callable[[str], AbstractAsyncContextManager[SessionSocket]]


class Uplink:
    """Connects this host's workload with its control plane. `run` does everything; the properties are for metrics."""

    def __init__(
        self,
        identity: Identity,
        workload: Workload,
        *,
        clock: Clock,
        random: random_module.Random,
        backoff_cap_s: float = BACKOFF_CAP_S,
        on_connected: Callable[[bool], None] = lambda _: None,
        connecting: Callable[[], AbstractAsyncContextManager[Connect]] | None = None,
    ) -> None:
        """`on_connected` is called when a session begins (True) and ends (False).

        `connecting`: what gives the means to connect, for as long as `run` goes on; None: WebSockets over HTTP.
        """
        self._identity = identity
        self._workload = workload
        self._clock = clock
        self._random = random
        self._backoff_cap_s = backoff_cap_s
        self._attempts = 0
        self._connecting = connecting or (lambda: _websockets(identity))
        self.connected = False
        self._on_connected = on_connected
        #: When the control plane was last heard, epoch seconds; None if not since this process started.
        self.last_contact_at: float | None = None
        #: Sessions begun since this process started.
        self.sessions = 0
        #: Why the last session or attempt ended; "" while connected.
        self.failure = ""

    async def run(self) -> None:
        """Hold a session, again and again. Returns once this host was deregistered and its tasks have stopped.

        Raises what the workload raises (a journal that can't be written must end the agent). On cancel the connection
        is closed, and containers are left alone.
        """
        async with self._connecting() as connect:
            for server in itertools.cycle(self._identity.servers):
                goodbye = await self._try(connect, server)
                if goodbye.final:
                    break
                await asyncio.sleep(pause_s(goodbye, self._attempts, self._backoff_cap_s, self._random))
                self._attempts += 1
        _log.warning("this host is deregistered; stopping its tasks", reason=goodbye.reason)
        await self._workload.deregistered(goodbye.reason)

    async def _try(self, connect: Connect, server: str) -> Goodbye:
        """Hold one session for as long as it lasts. Return how it ended; a failure reads like a goodbye of its own."""
        told: Goodbye | None = None
        failure = ""
        try:
            await self._hold_session(connect, server)
        except* SessionEnded as ended:
            told = next(error.goodbye for error in leaves(ended) if isinstance(error, SessionEnded))
        except* TimeoutError:
            failure = f"no session within {CONNECT_TIMEOUT_S:.0f} s"
        except* _FAILURES as failed:
            error = next(leaves(failed))
            failure = str(error) or type(error).__name__
        finally:
            self._set_connected(False)
        # A task group whose child fails in the turn of a cancel raises the failure and drops the cancel (until
        # Python 3.13): this loop would go on for ever, and the agent could not be stopped.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        # What the control plane said counts for more than how the connection broke.
        goodbye = told or Goodbye(reason=failure)
        if goodbye.reason != self.failure:
            # Said once: a control plane that stays away for days must not fill the log.
            self.failure = goodbye.reason
            _log.warning("no session with the control plane", server=server, reason=goodbye.reason)
        return goodbye

    async def _hold_session(self, connect: Connect, server: str) -> None:
        """Connect and serve; always raises."""
        async with asyncio.timeout(CONNECT_TIMEOUT_S) as deadline:
            async with connect(server) as socket:
                session = AgentSession(socket, self._identity, self._workload, self._heard)
                welcome = await session.greet()
                deadline.reschedule(None)
                began = self._clock.monotonic()
                self._set_connected(True)
                self.sessions += 1
                self.failure = ""
                _log.info("session with the control plane", server=server, session=welcome.session_id)
                try:
                    await session.serve()
                finally:
                    if self._clock.monotonic() - began >= LASTED_S:
                        self._attempts = 0

    def _set_connected(self, connected: bool) -> None:
        if connected is not self.connected:
            self.connected = connected
            self._on_connected(connected)

    def _heard(self) -> None:
        self.last_contact_at = self._clock.now()


@asynccontextmanager
async def _websockets(identity: Identity) -> AsyncIterator[Connect]:
    tls = {server: tls_context(server, identity.ca_pem) for server in identity.servers}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:
        yield lambda server: http.ws_connect(
            server + PATH_SESSION,
            ssl=tls[server],
            max_msg_size=MAX_FRAME_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
        )


def pause_s(goodbye: Goodbye, attempts: int, cap_s: float, source: random_module.Random) -> float:
    """Return the seconds to wait before connecting again, after so many attempts since the last lasting session.

    Full jitter: any time up to a bound that doubles with each attempt. If the control plane named a time, that and up
    to a quarter more.
    """
    if goodbye.retry_after_s > 0:
        return min(goodbye.retry_after_s, RETRY_AFTER_CAP_S) * source.uniform(1.0, 1.25)
    return source.uniform(0.0, min(cap_s, BACKOFF_BASE_S * 2.0 ** min(attempts, 30)))


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """Yield the errors within groups of errors."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
