"""The log store that comes with Homeport: a catalog in SQLite and compressed segment files, below one directory.

    ROOT/catalog.db   groups, streams, the index of blocks, and each stream's tail: what isn't sealed yet
    ROOT/segments/    blocks of events, see `segments`

    async with SegmentLogStore.open(root, clock) as store:
        async with asyncio.TaskGroup() as group:
            group.create_task(store.run())

An append is durable in the tail (one transaction for all that wait); tails become blocks (`sealing`); searches see both
(`reading`). One thread writes, a few read, and neither waits for the other. Nothing that happens here ends the process:
what can't be done is refused with a reason, and tried again.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, Protocol

import structlog

from controlplane.logs.api import (
    EventKey,
    LogEvent,
    LogGroup,
    LogStream,
    ScanKey,
    Shipment,
    StoredEvent,
    StoreUnavailable,
    StoreUsage,
)
from controlplane.logs.blocks import encode_batch
from controlplane.logs.catalog import Appended, Catalog, advance
from controlplane.logs.database import Database
from controlplane.logs.keeping import Keeper
from controlplane.logs.opening import set_damaged_aside
from controlplane.logs.pieces import Finder, Times, find_in_group
from controlplane.logs.reading import Entry, Loader, first_events, last_events, merged, taken
from controlplane.logs.schema import find_stream
from controlplane.logs.sealing import keep_in_tail
from controlplane.logs.segments import SegmentFiles
from controlplane.logs.space import DEFAULT_LIMIT_BYTES, Disk, Space
from controlplane.store.lock import FileLock
from homeport.clock import Clock, SystemClock

__all__ = ["SegmentLogStore", "StoreObserver"]

_log: Final = structlog.get_logger(__name__)

#: How often there is a look at what is to be done, without anyone asking for it.
_PERIOD_S: Final = 2.0


class StoreObserver(Protocol):
    """Is told what happens, for metrics. Called on the event loop."""

    def appended(self, events: int, size: int) -> None:
        """So many events were kept, of that size as CloudWatch counts it."""
        ...

    def refused(self) -> None:
        """A write was refused for want of room, or failed."""
        ...

    def read(self, blocks: int) -> None:
        """So many blocks were read from segments."""
        ...


class SegmentLogStore:
    """See the module and LogStore. Constructing does no I/O."""

    def __init__(
        self,
        root: Path,
        clock: Clock | None = None,
        *,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        observe: StoreObserver | None = None,
        files: SegmentFiles | None = None,
        measure: Callable[[Path], Disk] | None = None,
    ) -> None:
        self.root = root
        #: Blocks read from segments so far.
        self.blocks_read = 0
        self._clock = clock or SystemClock()
        self._observe = observe
        self._files = files or SegmentFiles(root / "segments")
        space = Space(root, limit_bytes, measure=measure)
        self._database = Database(root / "catalog.db", explain=space.explain)
        self._attention = asyncio.Event()
        self._catalog = Catalog(
            self._database, on_deleted=self._attention.set, check_room=lambda: self._keeper.check_room()
        )
        self._keeper = Keeper(self._database, self._catalog, self._files, space, self._clock)
        self._lock = FileLock(root / "lock")
        self._locked = False
        self._problem = "the log store isn't open yet"
        self._ready = False

    # ------------------------------------------------------------ life cycle

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        root: Path,
        clock: Clock | None = None,
        *,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        observe: StoreObserver | None = None,
        files: SegmentFiles | None = None,
        measure: Callable[[Path], Disk] | None = None,
    ) -> AsyncIterator["SegmentLogStore"]:
        """Give a store, and close it at the end.

        If it can't be opened for want of room or the like, it says so to whoever uses it, and `run` goes on trying.
        Raises ConfigurationError if another process has it.
        """
        store = cls(root, clock, limit_bytes=limit_bytes, observe=observe, files=files, measure=measure)
        try:
            await store.start()
            yield store
        finally:
            await store.close()

    async def start(self) -> None:
        """Open what there is. Raises ConfigurationError if another process has it."""
        try:
            await self._open()
        except StoreUnavailable as error:
            self._failed(error)
        else:
            self._problem = ""
            self._ready = True

    async def _open(self) -> None:
        await self._database.prepare(self._prepare)
        try:
            await self._keeper.open()
        except StoreUnavailable:
            if not self._keeper.space.give_up_reserve():
                raise
            await self._keeper.open()

    async def close(self) -> None:
        """Finish the writes under way, and close. Tails stay in the catalog."""
        self._ready = False
        self._problem = "the log store is closed"
        await self._database.close()
        self._lock.release()

    def _prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._locked:
            self._lock.acquire()
            self._locked = True
        if self._database.damaged:
            set_damaged_aside(self._database.path)
        self._database.path.touch(mode=0o600)

    def _failed(self, error: StoreUnavailable) -> None:
        if str(error) != self._problem:
            _log.error("log_store_unavailable", reason=str(error))
        self._problem = str(error)

    def _check_ready(self) -> None:
        if not self._ready:
            raise StoreUnavailable(self._problem)

    # ------------------------------------------------------------ groups and streams

    def groups(self) -> Sequence[LogGroup]:
        """See LogStore."""
        self._check_ready()
        return self._catalog.groups()

    def group(self, name: str) -> LogGroup:
        """See LogStore."""
        self._check_ready()
        return self._catalog.group(name)

    async def create_group(self, group: LogGroup) -> None:
        """See LogStore."""
        with self._writing():
            await self._catalog.create_group(group)

    async def change_group(self, name: str, change: Callable[[LogGroup], LogGroup]) -> None:
        """See LogStore. A retention that has become shorter hides at once, and removes within seconds."""
        with self._writing():
            await self._catalog.change_group(name, change)
        self._keeper.look_at_retention()

    async def delete_group(self, name: str) -> None:
        """See LogStore."""
        with self._writing():
            await self._catalog.delete_group(name)

    async def create_stream(self, group: str, name: str, *, at: int) -> None:
        """See LogStore."""
        with self._writing():
            await self._catalog.create_stream(group, name, at=at)

    async def delete_stream(self, group: str, name: str) -> None:
        """See LogStore."""
        with self._writing():
            await self._catalog.delete_stream(group, name)

    async def stream(self, group: str, name: str) -> LogStream:
        """See LogStore."""
        self._check_ready()
        return await self._catalog.stream(group, name)

    async def streams(
        self,
        group: str,
        *,
        prefix: str = "",
        order: Literal["name", "last_event"] = "name",
        descending: bool = False,
        after: tuple[int, str] | None = None,
        limit: int = 50,
    ) -> Sequence[LogStream]:
        """See LogStore."""
        self._check_ready()
        return await self._catalog.streams(
            group, prefix=prefix, order=order, descending=descending, after=after, limit=limit
        )

    async def grown(self, group: str, stream: str, after: int) -> None:
        """See LogStore."""
        self._check_ready()
        await self._catalog.grown(group, stream, after)

    # ------------------------------------------------------------ writing

    async def append(
        self, group: str, stream: str, events: Sequence[LogEvent], *, ingested_at: int, shipment: Shipment | None = None
    ) -> None:
        """See LogStore."""

        def append(connection: sqlite3.Connection) -> Appended:
            self._keeper.check_room()
            appended = advance(connection, group, stream, events, ingested_at=ingested_at, shipment=shipment)
            if appended.events:
                keep_in_tail(connection, appended, encode_batch(appended.events), ingested_at)
            return appended

        with self._writing():
            await self._database.write(append, self._appended)

    def _appended(self, appended: Appended) -> None:
        self._keeper.appended(appended)
        self._catalog.wake(appended.stream.group, appended.stream.name)
        if self._observe is not None and appended.events:
            self._observe.appended(len(appended.events), appended.size)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Note how a write ends."""
        try:
            self._check_ready()
            yield
        except StoreUnavailable as error:
            self._failed(error)
            if self._observe is not None:
                self._observe.refused()
            raise

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
        times = Times(self._start(group, start), end)
        sought = Times(
            _latest(times.start, None if after is None else after[0]),
            _earliest(end, None if before is None else before[0] + 1),
        )
        loader = Loader(self._files, times, self._still_there)

        def read() -> Sequence[StoredEvent]:
            with self._snapshot() as connection:
                group_id, stream_id, _ = find_stream(connection, group, stream)
                finder = Finder(self._database.connection, group_id, {stream_id: stream}, sought)
            if newest:
                return taken(last_events(finder.backward(), loader.load, after, before), limit, max_bytes)[::-1]
            return taken(first_events(finder.forward(), loader.load, after, before), limit, max_bytes)

        found = await self._database.read(read)
        self._count_blocks(loader.blocks)
        return found

    async def scan(
        self,
        group: str,
        *,
        streams: Collection[str] | None = None,
        prefix: str = "",
        start: int | None = None,
        end: int | None = None,
        after: ScanKey | None = None,
    ) -> AsyncGenerator[Sequence[tuple[str, StoredEvent]]]:
        """See LogStore. Sees what was there when it began."""
        self._check_ready()
        times = Times(self._start(group, start), end)
        sought = Times(_latest(times.start, None if after is None else after[0]), end)
        loader = Loader(self._files, times, self._still_there)

        def begin() -> Iterator[list[Entry]]:
            with self._snapshot() as connection:
                group_id, named = find_in_group(connection, group, streams, prefix)
                finder = Finder(self._database.connection, group_id, named, sought)
            return merged(finder.forward(), loader.load)

        chunks = await self._database.read(begin)
        counted = 0
        while (chunk := await self._database.read(lambda: next(chunks, None))) is not None:
            self._count_blocks(loader.blocks - counted)
            counted = loader.blocks
            found = [(name, event) for at, name, number, event in chunk if after is None or (at, name, number) > after]
            yield found

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        connection = self._database.connection()
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("ROLLBACK")

    def _start(self, group: str, start: int | None) -> int | None:
        """Return where a search begins: what has expired isn't there, even if it still is. Raises GroupMissing."""
        return _latest(start, self._keeper.cutoff(self._catalog.group(group)))

    def _still_there(self, block: int) -> bool:
        return bool(self._database.connection().execute("SELECT 1 FROM blocks WHERE id = ?", (block,)).fetchone())

    def _count_blocks(self, blocks: int) -> None:
        self.blocks_read += blocks
        if blocks and self._observe is not None:
            self._observe.read(blocks)

    # ------------------------------------------------------------ itself

    def usage(self) -> StoreUsage:
        """See LogStore."""
        return StoreUsage(
            used_bytes=self._keeper.used, limit_bytes=self._keeper.space.limit_bytes, problem=self._problem
        )

    async def blocks(self) -> int:
        """Return how many blocks there are."""
        statement = "SELECT count(*) FROM blocks"
        (found,) = await self._database.read(lambda: self._database.connection().execute(statement).fetchone())
        return int(found)

    async def run(self) -> None:
        """See LogStore. What fails is logged, and tried again."""
        while True:
            try:
                await self.tend()
            except StoreUnavailable as error:
                self._failed(error)
            except Exception:  # noqa: BLE001 whatever is wrong with logs, the control plane goes on
                _log.exception("log_store_failed")
            self._attention.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_PERIOD_S):
                    await self._attention.wait()

    async def tend(self) -> None:
        """Do once what is to be done by now. Raises StoreUnavailable."""
        if self._database.damaged:
            self._ready = False
        if not self._ready:
            await self.start()
            if not self._ready:
                return
        await self._keeper.tend()
        if self._problem:
            await self._keeper.try_to_write()
            self._problem = ""
            _log.info("log_store_available", path=str(self.root))

    async def seal(self) -> None:
        """Make blocks of all tails. Raises StoreUnavailable."""
        await self._keeper.seal()


def _latest(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else max(one, other)


def _earliest(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else min(one, other)
