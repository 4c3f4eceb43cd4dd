"""The log store over Grafana Loki. See the package.

    ROOT/catalog.db   groups, streams, and what waits to be pushed

    async with LokiLogStore.open(root, parse_address(url)) as store:
        async with asyncio.TaskGroup() as group:
            group.create_task(store.run())

An append is durable here, in one transaction with its stream's position, and is pushed to Loki at once, together with
whatever else waits: reads see both. While Loki is away it waits here, up to a limit; then appends are refused and
agents keep what they have. Retention is Loki's: a group's hides what is older, and removes nothing from Loki. What is
deleted is hidden at once, and gone from Loki if its deletion API is enabled.

What Loki shows late: entries hours old when they are pushed (of a host that was cut off) are seen once Loki has written
their chunk, half an hour later by its defaults (`query_ingesters_within`).
"""

import asyncio
import ssl
from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import structlog

from controlplane.logs.api import EventKey, ScanKey, StoredEvent, StoreUnavailable, StoreUsage, size_of
from controlplane.logs.catalog import Appended
from controlplane.logs.cataloged import CatalogedStore, StoreObserver, earliest, latest
from controlplane.logs.loki import outbox
from controlplane.logs.loki.address import LokiAddress
from controlplane.logs.loki.client import LokiAway, LokiClient
from controlplane.logs.loki.entries import NS_PER_MS, group_id_label, stream_id_label
from controlplane.logs.loki.pushing import OUTBOX_BYTES, Pusher
from controlplane.logs.loki.slices import LokiReader, Slice
from controlplane.logs.schema import find_stream
from controlplane.logs.space import Disk, Space
from homeport.clock import Clock, SystemClock
from homeport.errors import ConfigurationError

__all__ = ["LokiLogStore"]

_log: Final = structlog.get_logger(__name__)

#: How often what was deleted or has expired is looked for, without anyone asking.
_PERIOD_S: Final = 60.0
#: So many streams are named in a query; for more, all of their group are read.
_NAMED_STREAMS: Final = 50

_Pair = tuple[str, StoredEvent]


class LokiLogStore(CatalogedStore):
    """See the module and LogStore."""

    def __init__(
        self,
        root: Path,
        address: LokiAddress,
        clock: Clock | None = None,
        *,
        observe: StoreObserver | None = None,
        measure: Callable[[Path], Disk] | None = None,
    ) -> None:
        super().__init__(root, clock or SystemClock(), Space(root, OUTBOX_BYTES, measure=measure), observe)
        self._client = LokiClient(address)
        self._pusher = Pusher(self._database, self._client, self._clock, root, told=self._told)
        self._attention = asyncio.Event()

    # ------------------------------------------------------------ life cycle

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        root: Path,
        address: LokiAddress,
        clock: Clock | None = None,
        *,
        observe: StoreObserver | None = None,
        measure: Callable[[Path], Disk] | None = None,
    ) -> AsyncIterator["LokiLogStore"]:
        """Give a store, and close it at the end. Loki need not be there.

        Raises ConfigurationError if another process has `root`, or the authorities' file can't be read.
        """
        store = cls(root, address, clock, observe=observe, measure=measure)
        try:
            await store.start()
            yield store
        finally:
            await store.close()

    async def start(self) -> None:
        """See CatalogedStore."""
        try:
            self._client.open()
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"the authorities in {self._client.address.ca} can't be used: {error}") from error
        await super().start()

    async def close(self) -> None:
        """See CatalogedStore. What waits is pushed by the next one."""
        await super().close()
        await self._client.close()

    async def _open(self) -> None:
        epoch = f"{int(self._clock.now() * 1000):x}"
        await self._database.alone(lambda connection: outbox.open_outbox(connection, epoch), self._opened)

    def _opened(self, opened: outbox.Opened) -> None:
        self._catalog.loaded(opened.groups)
        self._pusher.epoch = opened.epoch
        self._pusher.waiting_bytes = 0
        self._pusher.grew(opened.waiting_bytes)

    # ------------------------------------------------------------ writing

    def _check_room(self) -> None:
        self._pusher.check_room()
        self._space.check(0)

    def _grew(self, appended: Appended) -> None:
        self._catalog.resize([(appended.group_id, appended.size)])
        self._pusher.grew(appended.size)

    def _told(self, appended: Appended) -> None:
        self._grew(appended)
        self._catalog.wake(appended.stream.group, appended.stream.name)

    # ------------------------------------------------------------ reading

    async def read(
        self,
        group: str,
        stream: str,
        *,
        start: int | None = None,
        end: int | None = None,
        after: EventKey | None = None,
        before: EventKey | None = None,
        limit: int = 10_000,
        max_bytes: int = 1024 * 1024,
        newest: bool = False,
    ) -> Sequence[StoredEvent]:
        """See LogStore."""
        self._check_ready()
        start = self._start(group, start)

        def look() -> tuple[int, int, int, list[_Pair]]:
            with self._database.snapshot() as connection:
                group_id, stream_id, known = find_stream(connection, group, stream)
                begin = latest(known.first_at, start, None if after is None else after[0])
                until = earliest(None if known.last_at is None else known.last_at + 1, end)
                until = earliest(until, None if before is None else before[0] + 1)
                if known.first_at is None or begin is None or until is None or begin >= until:
                    return stream_id, 0, 0, []
                return (
                    stream_id,
                    begin,
                    until,
                    outbox.waiting_events(connection, group_id, {stream_id: stream}, start=begin, end=until),
                )

        stream_id, begin, until, waiting = await self._database.read(look)
        reader = self._reader(f'homeport_stream_id="{stream_id_label(self._pusher.epoch, stream_id)}"')
        slices = reader.backward(begin, until) if newest else reader.forward(begin, until)
        taken = _Taken(limit, max_bytes)
        with _as_unavailable():
            async with aclosing(slices):
                async for part in _with_waiting(slices, waiting, {stream}):
                    for _, event in reversed(part) if newest else part:
                        within = (after is None or event.key > after) and (before is None or event.key < before)
                        if within and not taken.take(event):
                            return taken.in_order(newest)
        return taken.in_order(newest)

    async def scan(
        self,
        group: str,
        *,
        streams: Collection[str] | None = None,
        prefix: str = "",
        start: int | None = None,
        end: int | None = None,
        after: ScanKey | None = None,
    ) -> AsyncGenerator[Sequence[_Pair]]:
        """See LogStore. Sees what was there when it began."""
        self._check_ready()
        start = latest(self._start(group, start), None if after is None else after[0])

        def look() -> tuple[int, dict[int, str], int, int, list[_Pair]]:
            with self._database.snapshot() as connection:
                group_id, named, (first, last) = outbox.streams_in(connection, group, streams, prefix)
                begin, until = max(first, start or 0), last if end is None else min(last, end)
                if not named or begin >= until:
                    return group_id, {}, 0, 0, []
                waiting = outbox.waiting_events(connection, group_id, named, start=begin, end=until)
                return group_id, named, begin, until, waiting

        group_id, named, begin, until, waiting = await self._database.read(look)
        slices = self._reader(self._selector(group_id, named)).forward(begin, until)
        with _as_unavailable():
            async with aclosing(slices):
                async for part in _with_waiting(slices, waiting, set(named.values())):
                    yield [pair for pair in part if after is None or _scan_key(pair) > after]

    def _selector(self, group_id: int, named: Collection[int]) -> str:
        epoch = self._pusher.epoch
        selector = f'homeport_group_id="{group_id_label(epoch, group_id)}"'
        if len(named) <= _NAMED_STREAMS:
            ids = "|".join(stream_id_label(epoch, stream_id) for stream_id in named)
            selector += f', homeport_stream_id=~"{ids}"'
        return selector

    def _reader(self, selector: str) -> LokiReader:
        return LokiReader(self._client, f"{{{selector}}}", self._pusher.window())

    # ------------------------------------------------------------ in the background

    def usage(self) -> StoreUsage:
        """See LogStore: of what waits here. There is a problem as soon as Loki doesn't get it."""
        return StoreUsage(
            used_bytes=self._pusher.waiting_bytes,
            limit_bytes=OUTBOX_BYTES,
            problem=self._problem or self._pusher.problem(),
        )

    async def run(self) -> None:
        """See LogStore. What fails is logged, and tried again."""
        while not self._ready:
            await asyncio.sleep(_PERIOD_S)
            await self.start()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pusher.run())
            tasks.create_task(self._tend())

    async def flush(self) -> None:
        """Push everything that is due. Raises StoreUnavailable."""
        with _as_unavailable():
            await self._pusher.flush()

    async def remove(self) -> None:
        """Have Loki delete what was deleted, and forget what has expired. Raises StoreUnavailable."""
        with _as_unavailable():
            while any(deleted := await self._database.read(lambda: outbox.to_be_deleted(self._database.connection()))):
                await self._delete(deleted)
        groups = self._catalog.groups_by_id()
        found = {number: self._cutoff(group) for number, group in groups.items()}
        cutoffs = {number: cutoff for number, cutoff in found.items() if cutoff is not None}
        await self._database.write(lambda connection: outbox.forget_expired(connection, cutoffs), self._catalog.resize)

    async def _delete(self, deleted: outbox.Deleted) -> None:
        epoch, now = self._pusher.epoch, int(self._clock.now())
        begin = self._pusher.window()[0] // 1000
        selectors = [f'{{homeport_group_id="{group_id_label(epoch, number)}"}}' for number in deleted.groups]
        selectors += [f'{{homeport_stream_id="{stream_id_label(epoch, number)}"}}' for number in deleted.streams]
        for selector in selectors:
            if not await self._client.delete(selector, begin, now):
                _log.info("loki_does_not_delete", hint="what was deleted is hidden, and stays until Loki's retention")
                break
        await self._database.write(
            lambda connection: outbox.forget_deleted(connection, deleted), lambda left: self._pusher.grew(-left)
        )

    async def _tend(self) -> None:
        while True:
            self._attention.clear()
            try:
                await self.remove()
            except StoreUnavailable as error:
                _log.info("log_store_untended", reason=str(error))
            except Exception:  # noqa: BLE001 whatever is wrong with logs, the control plane goes on
                _log.exception("log_store_failed")
            try:
                async with asyncio.timeout(_PERIOD_S):
                    await self._attention.wait()
            except TimeoutError:
                continue

    def _look(self) -> None:
        self._attention.set()


class _Taken:
    """Collects the events that a read returns."""

    def __init__(self, limit: int, max_bytes: int) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._events: list[StoredEvent] = []
        self._size = 0

    def take(self, event: StoredEvent) -> bool:
        """Take an event. False if there is no room for it."""
        self._size += size_of(event.text)
        if len(self._events) >= self._limit or (self._events and self._size > self._max_bytes):
            return False
        self._events.append(event)
        return True

    def in_order(self, newest: bool) -> list[StoredEvent]:
        """Return them in their order; they were taken the other way round if `newest`."""
        return self._events[::-1] if newest else self._events


async def _with_waiting(
    slices: AsyncGenerator[Slice], waiting: list[_Pair], names: Collection[str]
) -> AsyncGenerator[list[_Pair]]:
    """Yield what Loki has and what waits, each event once: it may be in both. Each part is in order.

    `waiting`, in order, was read before Loki is asked: what has left it since is there. Streams other than `names` are
    those of deleted ones.
    """
    times = [event.at for _, event in waiting]
    async for part in slices:
        found = {
            (entry.stream, entry.number): StoredEvent(
                entry.ns // NS_PER_MS, entry.number, entry.ingested_at, entry.text, entry.kind
            )
            for entry in part.entries
            if entry.stream in names
        }
        begin, end = bisect_left(times, part.start), bisect_left(times, part.end)
        found |= {(name, event.number): event for name, event in waiting[begin:end]}
        yield sorted(((name, event) for (name, _), event in found.items()), key=_scan_key)


def _scan_key(pair: _Pair) -> ScanKey:
    name, event = pair
    return event.at, name, event.number


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except LokiAway as error:
        raise StoreUnavailable(str(error)) from error
