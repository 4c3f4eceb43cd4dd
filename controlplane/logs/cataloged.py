"""What log stores have in common that keep groups and streams in a catalog here, wherever their events go."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, Protocol

import structlog

from controlplane.logs.api import LogEvent, LogGroup, LogStream, Shipment, StoreUnavailable
from controlplane.logs.blocks import encode_batch
from controlplane.logs.catalog import Appended, Catalog, advance
from controlplane.logs.database import Database
from controlplane.logs.opening import drop_write_ahead, set_damaged_aside
from controlplane.logs.sealing import keep_in_tail
from controlplane.logs.space import Space
from controlplane.store.lock import FileLock
from homeport.clock import Clock

__all__ = ["CatalogedStore", "StoreObserver", "earliest", "latest"]

_log: Final = structlog.get_logger(__name__)
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


class CatalogedStore(ABC):
    """The part of LogStore that the catalog answers, and appending to tails. Constructing does no I/O.

    If it can't be opened for want of room or the like, it says so to whoever uses it; `start` is for trying again.
    """

    def __init__(self, root: Path, clock: Clock, space: Space, observe: StoreObserver | None) -> None:
        self.root = root
        self._clock = clock
        self._observe = observe
        self._space = space
        self._database = Database(root / "catalog.db", explain=space.explain)
        self._catalog = Catalog(self._database, on_deleted=self._look, check_room=self._check_room)
        self._lock = FileLock(root / "lock")
        self._locked = False
        self._problem = "the log store isn't open yet"
        self._ready = False

    # ------------------------------------------------------------ what stores differ in

    @abstractmethod
    async def _open(self) -> None:
        """Read what there is, once the catalog's file is there. Raises StoreUnavailable."""

    @abstractmethod
    def _check_room(self) -> None:
        """Raise StoreUnavailable if nothing may be added. In the writer's thread."""

    @abstractmethod
    def _look(self) -> None:
        """See in the background whether there is something to do."""

    @abstractmethod
    def _grew(self, appended: Appended) -> None:
        """A tail has grown. On the event loop."""

    # ------------------------------------------------------------ life cycle

    async def start(self) -> None:
        """Open what there is. Raises ConfigurationError if another process has it."""
        try:
            await self._database.prepare(self._prepare)
            await self._open()
        except StoreUnavailable as error:
            self._failed(error)
        else:
            self._problem = ""
            self._ready = True

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
        if not self._database.path.exists():
            drop_write_ahead(self._database.path)
        self._database.path.touch(mode=0o600)

    def _failed(self, error: StoreUnavailable) -> None:
        if str(error) != self._problem:
            _log.error("log_store_unavailable", reason=str(error))
        self._problem = str(error)

    def _check_ready(self) -> None:
        if not self._ready:
            raise StoreUnavailable(self._problem)

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
        self._problem = ""

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
        """See LogStore. A retention that has become shorter hides at once."""
        with self._writing():
            await self._catalog.change_group(name, change)
        self._look()

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
        self._grew(appended)
        self._catalog.wake(appended.stream.group, appended.stream.name)
        if self._observe is not None and appended.events:
            self._observe.appended(len(appended.events), appended.size)

    # ------------------------------------------------------------ retention

    def _cutoff(self, group: LogGroup) -> int | None:
        """Return before which time a group's events have expired."""
        if group.retention_days is None:
            return None
        return int(self._clock.now() * 1000) - group.retention_days * _DAY_MS

    def _start(self, group: str, start: int | None) -> int | None:
        """Return where a search begins: what has expired isn't there, even if it still is. Raises GroupMissing."""
        cutoff = self._cutoff(self._catalog.group(group))
        return start if cutoff is None else cutoff if start is None else max(start, cutoff)


def latest(*times: int | None) -> int | None:
    """Return where a span begins that more than one bound begins; None: without a bound."""
    return max((time for time in times if time is not None), default=None)


def earliest(*times: int | None) -> int | None:
    """Return where a span ends that more than one bound ends; None: without a bound."""
    return min((time for time in times if time is not None), default=None)
