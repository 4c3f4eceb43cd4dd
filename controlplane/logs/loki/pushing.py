"""Pushing what waits to Loki, in batches as large as they become while the one before is under way."""

import asyncio
import itertools
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog
from msgspec.structs import replace

from controlplane.logs.api import StoredEvent, StoreUnavailable
from controlplane.logs.catalog import Appended
from controlplane.logs.database import Database
from controlplane.logs.loki.client import LokiAway, LokiClient, LokiRefused
from controlplane.logs.loki.entries import StreamLabels, push_body
from controlplane.logs.loki.outbox import Refusal, Waiting, due, settle
from controlplane.logs.words import size_in_words
from homeport.clock import Clock

__all__ = ["OUTBOX_BYTES", "Pusher"]

_log: Final = structlog.get_logger(__name__)

#: What may wait here. Agents keep more, on their own hosts.
OUTBOX_BYTES: Final = 64 * 1024 * 1024
#: Texts in one push; Loki's default takes 6 MB in one go.
_PUSH_BYTES: Final = 1024 * 1024
#: What is further in the future waits: Loki's default refuses what is more than ten minutes ahead.
_AHEAD_MS: Final = 5 * 60_000
#: But not what is beyond this, which no API takes: a host's clock is wrong, and would fill the outbox.
_TOO_FAR_AHEAD_MS: Final = 2 * 3_600_000
#: Older than the catalog by more than this is nothing: no API takes it.
_TOO_OLD_MS: Final = 15 * 86_400_000
#: Between two tries while Loki is away, in seconds: doubled each time.
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
#: How often there is a look, without anyone asking: at what was in the future.
_PERIOD_S: Final = 5.0

#: Loki takes what is an hour older than the newest of its stream, by its defaults.
_HOUR_MS: Final = 3_600_000

_Settled = tuple[int, list[Appended]]


class Pusher:
    """Empties the outbox. `told` is called with what the outbox gained where Loki refused something."""

    def __init__(
        self, database: Database, client: LokiClient, clock: Clock, root: Path, *, told: Callable[[Appended], None]
    ) -> None:
        #: Why the last push failed; "": it didn't.
        self.trouble = ""
        #: Of what waits, as CloudWatch counts it.
        self.waiting_bytes = 0
        self.epoch = ""
        self._database = database
        self._client = client
        self._clock = clock
        self._root = root
        self._told = told
        self._work = asyncio.Event()

    def grew(self, size: int) -> None:
        """There is more to push."""
        self.waiting_bytes += size
        self._work.set()

    def check_room(self) -> None:
        """Raise StoreUnavailable if the outbox is full."""
        if self.waiting_bytes >= OUTBOX_BYTES:
            raise StoreUnavailable(f"no logs are taken: {self.problem() or 'Loki does not keep up'}")

    def problem(self) -> str:
        """Say why Loki doesn't get what waits; "" if it does."""
        if not self.trouble:
            return ""
        waiting, most = size_in_words(self.waiting_bytes), size_in_words(OUTBOX_BYTES)
        return f"{self.trouble} ({waiting} wait in {self._root}, which takes {most})"

    def window(self) -> tuple[int, int]:
        """Return from when to when Loki can have anything, in epoch milliseconds."""
        return int(self.epoch, 16) - _TOO_OLD_MS, int(self._clock.now() * 1000) + _TOO_FAR_AHEAD_MS

    async def run(self) -> None:
        """Push what there is to push, until cancelled; try again what fails."""
        pause = _FIRST_PAUSE_S
        while True:
            self._work.clear()
            try:
                await self.flush()
                pause = _FIRST_PAUSE_S
                async with asyncio.timeout(_PERIOD_S):
                    await self._work.wait()
            except TimeoutError:
                continue
            except (LokiAway, StoreUnavailable):
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
            except Exception:  # noqa: BLE001 whatever is wrong with logs, the control plane goes on
                _log.exception("pushing_to_loki_failed")
                await asyncio.sleep(_LONGEST_PAUSE_S)

    async def flush(self) -> None:
        """Push everything that is due. Raises LokiAway, StoreUnavailable."""
        while batches := await self._database.read(self._due):
            try:
                refusals = await self._push(batches)
            except LokiAway as error:
                if str(error) != self.trouble:
                    _log.error("loki_unavailable", reason=str(error))
                self.trouble = str(error)
                raise
            if self.trouble:
                self.trouble = ""
                _log.info("loki_available")
            await self._settle([batch.row for batch in batches], refusals)

    def _due(self) -> list[Waiting]:
        now = int(self._clock.now() * 1000)
        return due(
            self._database.connection(),
            self.epoch,
            until=now + _AHEAD_MS,
            but_from=now + _TOO_FAR_AHEAD_MS,
            max_bytes=_PUSH_BYTES,
        )

    async def _push(self, batches: Sequence[Waiting]) -> list[Refusal]:
        """Push batches; return what Loki will never take."""
        earliest, latest = self.window()
        wrong: list[Refusal] = []
        for place, batch in enumerate(batches):
            outside = [event for event in batch.events if not earliest <= event.at < latest]
            if outside:
                wrong.append(Refusal(batch.labels, outside, "their times are wrong by far"))
                inside = [event for event in batch.events if earliest <= event.at < latest]
                batches = [*batches[:place], batch._replace(events=inside), *batches[place + 1 :]]
        return wrong + await self._push_all([batch for batch in batches if batch.events])

    async def _push_all(self, batches: Sequence[Waiting]) -> list[Refusal]:
        if not batches:
            return []
        try:
            await self._send([(batch.labels, batch.events) for batch in batches])
        except LokiRefused as error:
            if len(batches) > 1:
                return [refusal for batch in batches for refusal in await self._push_all([batch])]
            events = sorted(batches[0].events, key=lambda event: event.key)
            refused = await self._refused(batches[0].labels, events)
            return await self._push_late(batches[0].labels, refused, str(error))
        return []

    async def _push_late(self, labels: StreamLabels, events: Sequence[StoredEvent], reason: str) -> list[Refusal]:
        """Push events that their stream refused, to streams of their hours; return those that these refuse, too."""
        never: list[StoredEvent] = []
        for hour, group in itertools.groupby(events, key=lambda event: event.at // _HOUR_MS):
            late = replace(labels, late=str(hour))
            found = list(group)
            try:
                await self._send([(late, found)])
            except LokiRefused as error:
                reason = str(error)
                never += await self._refused(late, found)
        return [Refusal(labels, never, reason)] if never else []

    async def _refused(self, labels: StreamLabels, events: Sequence[StoredEvent]) -> list[StoredEvent]:
        """Return which of some events, in order, are refused; together they were. Loki takes the others, again."""
        if len(events) == 1:
            return list(events)
        # What is too old or too new is so from one end on: if both ends are, all between them are.
        ends = [event for event in (events[0], events[-1]) if not await self._takes(labels, [event])]
        if len(ends) == 2:
            return list(events)
        middle = len(events) // 2
        halves = [half for half in (events[:middle], events[middle:]) if not await self._takes(labels, half)]
        return [event for half in halves for event in await self._refused(labels, half)]

    async def _takes(self, labels: StreamLabels, events: Sequence[StoredEvent]) -> bool:
        try:
            await self._send([(labels, events)])
        except LokiRefused:
            return False
        return True

    async def _send(self, streams: Sequence[tuple[StreamLabels, Sequence[StoredEvent]]]) -> None:
        # Encoding takes milliseconds, which a reader's thread has.
        await self._client.push(await self._database.read(lambda: push_body(streams)))

    async def _settle(self, rows: Sequence[int], refusals: Sequence[Refusal]) -> None:
        at = int(self._clock.now() * 1000)
        for refusal in refusals:
            _log.error("loki_refused", lines=len(refusal.events), stream=refusal.labels.stream, reason=refusal.reason)

        def write(connection: sqlite3.Connection) -> _Settled:
            return settle(connection, rows, refusals, at=at)

        await self._database.write(write, self._settled)

    def _settled(self, settled: _Settled) -> None:
        left, appended = settled
        self.waiting_bytes -= left
        for one in appended:
            self._told(one)
