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
from typing import Final, Literal, Protocol, TypeVar

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
from controlplane.logs.opening import Opened, recover, set_damaged_aside
from controlplane.logs.pieces import Finder, Times, find_in_group
from controlplane.logs.reading import Entry, Loader, first_events, last_events, merged, taken
from controlplane.logs.retention import Removed, empty_streams, evict, expire, purge
from controlplane.logs.schema import find_stream, touch, used_bytes
from controlplane.logs.sealing import Sealed, Tails, keep_in_tail, seal
from controlplane.logs.segments import SegmentFiles
from controlplane.logs.space import DEFAULT_LIMIT_BYTES, Disk, Space, in_words
from controlplane.store.lock import FileLock
from homeport.clock import Clock, SystemClock

__all__ = ["SegmentLogStore", "StoreObserver"]

T = TypeVar("T")

_log: Final = structlog.get_logger(__name__)

#: How often tails' ages and the limit are looked at, and how often what has expired is removed.
_PERIOD_S: Final = 2.0
_RETENTION_PERIOD_S: Final = 60.0
#: Beyond so many times what tails should come to of unsealed events nothing is taken: sealing must be failing.
_TAILS_BOUND: Final = 2
#: How long after a failed seal the next one is tried.
_SEAL_AGAIN_S: Final = 5.0
_DAY_MS: Final = 86_400_000


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
        self._space = Space(root, limit_bytes, measure=measure)
        self._database = Database(root / "catalog.db", explain=self._space.explain)
        self._catalog = Catalog(self._database, on_deleted=self._look)
        self._lock = FileLock(root / "lock")
        self._tails = Tails(limit_bytes)
        self._segment_bytes = 0
        self._catalog_bytes = 0
        self._problem = "the log store isn't open yet"
        self._ready = False
        self._attention = asyncio.Event()
        self._locked = False
        self._sealing = False
        self._seal_again_at = self._clock.monotonic()
        self._seal_problem = ""
        self._retention_due = self._clock.monotonic()

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
            await self._database.read(self._prepare)
            await self._database.alone(self._recover, self._opened)
        except StoreUnavailable as error:
            self._failed(error)

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
        set_damaged_aside(self._database.path)
        self._database.path.touch(mode=0o600)

    def _recover(self, connection: sqlite3.Connection) -> Opened:
        return recover(connection, self._files, self._space.limit_bytes, self._clock.monotonic())

    def _opened(self, opened: Opened) -> None:
        self._catalog.loaded(opened.groups)
        self._tails = opened.tails
        self._segment_bytes = opened.segment_bytes
        self._problem = ""
        self._ready = True

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
        self._retention_due = self._clock.monotonic()

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
            self._check_room()
            appended = advance(connection, group, stream, events, ingested_at=ingested_at, shipment=shipment)
            if appended.events:
                keep_in_tail(connection, appended, encode_batch(appended.events), ingested_at)
            return appended

        with self._writing():
            await self._database.write(append, self._appended)

    def _appended(self, appended: Appended) -> None:
        stream = appended.stream
        now = self._clock.monotonic()
        self._tails.appended(appended.stream_id, appended.size, ended=stream.ended, now=now)
        self._catalog.resize([(appended.group_id, appended.size)])
        self._catalog.wake(stream.group, stream.name)
        if self._observe is not None and appended.events:
            self._observe.appended(len(appended.events), appended.size)
        self._seal_what_is_full()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Note how a write ends."""
        self._check_ready()
        try:
            yield
        except StoreUnavailable as error:
            self._failed(error)
            if self._observe is not None:
                self._observe.refused()
            raise

    def _check_room(self) -> None:
        """Raise StoreUnavailable if nothing may be added. In the writer's thread."""
        self._space.check(self._used)
        if self._tails.size > _TAILS_BOUND * self._tails.limit:
            why = self._seal_problem or "the disk doesn't keep up"
            raise StoreUnavailable(
                f"no logs are taken: {in_words(self._tails.size)} wait to be sealed in {self.root}: {why}"
            )

    @property
    def _used(self) -> int:
        return self._segment_bytes + self._catalog_bytes

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
        return _latest(start, self._cutoff(self._catalog.group(group)))

    def _cutoff(self, group: LogGroup) -> int | None:
        if group.retention_days is None:
            return None
        return int(self._clock.now() * 1000) - group.retention_days * _DAY_MS

    def _still_there(self, block: int) -> bool:
        return bool(self._database.connection().execute("SELECT 1 FROM blocks WHERE id = ?", (block,)).fetchone())

    def _count_blocks(self, blocks: int) -> None:
        self.blocks_read += blocks
        if blocks and self._observe is not None:
            self._observe.read(blocks)

    # ------------------------------------------------------------ in the background

    def usage(self) -> StoreUsage:
        """See LogStore."""
        return StoreUsage(used_bytes=self._used, limit_bytes=self._space.limit_bytes, problem=self._problem)

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
        if not self._ready:
            await self.start()
            if not self._ready:
                return
        await self._remove(lambda connection: purge(connection, self._files))
        await self._expire()
        await self._keep_the_limit()
        while streams := self._tails.old(self._clock.monotonic()):
            await self.seal(streams)
        if self._problem:
            await self._database.write(self._try_to_write)
            self._problem = ""
            _log.info("log_store_available")

    async def seal(self, streams: Sequence[int] | None = None) -> None:
        """Seal these streams' tails (numbers in the catalog), or all. Raises StoreUnavailable."""
        while chosen := self._tails.everything() if streams is None else streams:
            await self._database.alone(lambda connection: seal(connection, self._files, chosen), self._sealed)
            if streams is not None:
                return

    def _try_to_write(self, connection: sqlite3.Connection) -> None:
        self._check_room()
        touch(connection)

    def _look(self) -> None:
        self._attention.set()

    def _seal_what_is_full(self) -> None:
        """Have the next seal begin, unless one is under way or has just failed."""
        if self._sealing or self._clock.monotonic() < self._seal_again_at:
            return
        if streams := self._tails.full():
            self._sealing = True
            work = self._database.submit(lambda connection: seal(connection, self._files, streams), self._sealed)
            work.add_done_callback(self._seal_done)

    def _sealed(self, sealed: Sealed) -> None:
        for stream_id, size in sealed.tails:
            self._tails.sealed(stream_id, size)
        self._segment_bytes += sealed.grown
        self._seal_problem = ""

    def _seal_done(self, work: "asyncio.Future[Sealed]") -> None:
        self._sealing = False
        error = None if work.cancelled() else work.exception()
        if error is not None:
            self._seal_again_at = self._clock.monotonic() + _SEAL_AGAIN_S
            if str(error) != self._seal_problem:
                _log.error("log_sealing_failed", reason=str(error))
            self._seal_problem = str(error)
        elif self._ready:
            self._seal_what_is_full()

    async def _expire(self) -> None:
        now = self._clock.monotonic()
        if now < self._retention_due:
            return
        groups = self._catalog.groups_by_id()
        found = {number: self._cutoff(group) for number, group in groups.items()}
        cutoffs = {number: cutoff for number, cutoff in found.items() if cutoff is not None}
        await self._remove(lambda connection: expire(connection, self._files, cutoffs))
        days = [(number, group.retention_days) for number, group in groups.items()]
        at = int(self._clock.now() * 1000)
        await self._database.alone(lambda connection: empty_streams(connection, at, days))
        self._retention_due = now + _RETENTION_PERIOD_S

    async def _keep_the_limit(self) -> None:
        self._catalog_bytes = await self._database.alone(used_bytes)
        while (excess := self._used - self._space.allowed(self._used)) > 0:
            before = self._used
            await self._remove(lambda connection, excess=excess: evict(connection, self._files, excess))  # type: ignore[misc]
            self._catalog_bytes = await self._database.alone(used_bytes)
            if self._used >= before:
                return

    async def _remove(self, step: Callable[[sqlite3.Connection], Removed]) -> None:
        while (await self._database.alone(step, self._removed)).more:
            pass

    def _removed(self, removed: Removed) -> None:
        self._catalog.resize(removed.groups)
        self._segment_bytes -= removed.freed
        for stream_id, size in removed.tails:
            self._tails.sealed(stream_id, size)


def _latest(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else max(one, other)


def _earliest(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else min(one, other)
