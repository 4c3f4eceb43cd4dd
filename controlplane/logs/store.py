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
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from controlplane.logs.api import EventKey, ScanKey, StoredEvent, StoreUnavailable, StoreUsage
from controlplane.logs.catalog import Appended
from controlplane.logs.cataloged import CatalogedStore, StoreObserver, earliest, latest
from controlplane.logs.keeping import Keeper
from controlplane.logs.pieces import Finder, Times, find_in_group
from controlplane.logs.reading import Entry, Loader, first_events, last_events, merged, taken
from controlplane.logs.schema import find_stream
from controlplane.logs.segments import SegmentFiles
from controlplane.logs.space import DEFAULT_LIMIT_BYTES, Disk, Space
from homeport.clock import Clock, SystemClock

__all__ = ["SegmentLogStore"]

_log: Final = structlog.get_logger(__name__)

#: How often there is a look at what is to be done, without anyone asking for it.
_PERIOD_S: Final = 2.0


class SegmentLogStore(CatalogedStore):
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
        super().__init__(root, clock or SystemClock(), Space(root, limit_bytes, measure=measure), observe)
        #: Blocks read from segments so far.
        self.blocks_read = 0
        self._files = files or SegmentFiles(root / "segments")
        self._keeper = Keeper(self._database, self._catalog, self._files, self._space, self._clock, cutoff=self._cutoff)
        self._attention = asyncio.Event()

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

    async def _open(self) -> None:
        try:
            await self._keeper.open()
        except StoreUnavailable:
            if not self._space.give_up_reserve():
                raise
            await self._keeper.open()

    def _check_room(self) -> None:
        self._keeper.check_room()

    def _look(self) -> None:
        self._keeper.look_at_retention()
        self._attention.set()

    def _grew(self, appended: Appended) -> None:
        self._keeper.appended(appended)
        if self._keeper.used > self._space.limit_bytes:
            self._attention.set()

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
            latest(times.start, None if after is None else after[0]),
            earliest(end, None if before is None else before[0] + 1),
        )
        loader = Loader(self._files, times, self._still_there)

        def read() -> Sequence[StoredEvent]:
            with self._database.snapshot() as connection:
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
        sought = Times(latest(times.start, None if after is None else after[0]), end)
        loader = Loader(self._files, times, self._still_there)

        def begin() -> Iterator[list[Entry]]:
            with self._database.snapshot() as connection:
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

    def _still_there(self, block: int) -> bool:
        return bool(self._database.connection().execute("SELECT 1 FROM blocks WHERE id = ?", (block,)).fetchone())

    def _count_blocks(self, blocks: int) -> None:
        self.blocks_read += blocks
        if blocks and self._observe is not None:
            self._observe.read(blocks)

    # ------------------------------------------------------------ itself

    def usage(self) -> StoreUsage:
        """See LogStore."""
        return StoreUsage(used_bytes=self._keeper.used, limit_bytes=self._space.limit_bytes, problem=self._problem)

    async def blocks(self) -> int:
        """Return how many blocks there are."""
        statement = "SELECT count(*) FROM blocks"
        (found,) = await self._database.read(lambda: self._database.connection().execute(statement).fetchone())
        return int(found)

    async def run(self) -> None:
        """See LogStore. What fails is logged, and tried again."""
        while True:
            self._attention.clear()
            try:
                await self.tend()
            except StoreUnavailable as error:
                self._failed(error)
            except Exception:  # noqa: BLE001 whatever is wrong with logs, the control plane goes on
                _log.exception("log_store_failed")
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
