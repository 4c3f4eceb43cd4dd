"""Keeping the segment store in order: tails are sealed, what has expired or is too much goes, what was deleted goes.

Decides on the event loop what is due, and has it done in the writer's thread, in slices between which appends get their
turn. Sealing what is full needs no one to ask for it: each append looks.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from controlplane.logs.api import LogGroup, StoreUnavailable
from controlplane.logs.catalog import Appended, Catalog
from controlplane.logs.database import Database
from controlplane.logs.opening import Opened, recover
from controlplane.logs.retention import Removed, empty_streams, evict, expire, purge
from controlplane.logs.schema import touch, used_bytes
from controlplane.logs.sealing import Sealed, Tails, seal
from controlplane.logs.segments import SegmentFiles
from controlplane.logs.space import Space
from controlplane.logs.words import size_in_words
from homeport.clock import Clock

__all__ = ["Keeper"]

_log: Final = structlog.get_logger(__name__)

#: How often what has expired is removed.
_RETENTION_PERIOD_S: Final = 60.0
#: Beyond so many times what tails should come to nothing is taken: sealing must be failing.
_TAILS_BOUND: Final = 2
#: How long after a failed seal the next one is tried.
_SEAL_AGAIN_S: Final = 5.0


class Keeper:
    """See the module. Constructing does no I/O; `open` comes before everything else.

    `cutoff` tells before which moment (epoch ms) a group's events have expired; None: they don't.
    """

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        files: SegmentFiles,
        space: Space,
        clock: Clock,
        *,
        cutoff: Callable[[LogGroup], int | None],
    ) -> None:
        self.space = space
        self._database = database
        self._catalog = catalog
        self._files = files
        self._clock = clock
        self._cutoff = cutoff
        self._tails = Tails(space.limit_bytes)
        self._segment_bytes = 0
        self._catalog_bytes = 0
        self._sealing = False
        self._seal_again_at = clock.monotonic()
        self._seal_problem = ""
        self._retention_due = clock.monotonic()
        # What is appended faster than it can be sealed waits for its commit, instead of being refused.
        database.jobs_first = lambda: self._tails.size > self._tails.limit

    async def open(self) -> None:
        """Bring catalog and files together, and learn what there is. Raises StoreUnavailable."""

        def opened(found: Opened) -> None:
            self._catalog.loaded(found.groups)
            self._tails = found.tails
            self._segment_bytes = found.segment_bytes
            self._catalog_bytes = found.catalog_bytes

        limit, now = self.space.limit_bytes, self._clock.monotonic()
        await self._database.alone(lambda connection: recover(connection, self._files, limit, now), opened)

    # ------------------------------------------------------------ room

    @property
    def used(self) -> int:
        """How much of the disk the store takes, in bytes."""
        return self._segment_bytes + self._catalog_bytes

    def check_room(self) -> None:
        """Raise StoreUnavailable if nothing may be added. In the writer's thread."""
        self.space.check(self.used)
        if self._tails.size > _TAILS_BOUND * self._tails.limit:
            why = self._seal_problem or "the disk doesn't keep up"
            raise StoreUnavailable(
                f"no logs are taken: {size_in_words(self._tails.size)} wait in {self.space.root} to be sealed: {why}"
            )

    async def try_to_write(self) -> None:
        """Raises StoreUnavailable if nothing could be added."""

        def write(connection: sqlite3.Connection) -> None:
            self.check_room()
            touch(connection)

        await self._database.write(write)

    async def _keep_the_limit(self) -> None:
        """Remove the oldest until what is there is within the limit, or nothing is left to remove."""
        self._catalog_bytes = await self._database.alone(used_bytes)
        while (excess := self.used - self.space.allowed(self.used)) > 0:
            if not (await self._remove(_evicting(self._files, excess))).freed:
                return
            self._catalog_bytes = await self._database.alone(used_bytes)

    # ------------------------------------------------------------ sealing

    def appended(self, appended: Appended) -> None:
        """Note what is in the tails now, and have the next seal begin if one is full."""
        now = self._clock.monotonic()
        self._tails.appended(appended.stream_id, appended.size, ended=appended.stream.ended, now=now)
        self._catalog.resize([(appended.group_id, appended.size)])
        self._seal_what_is_full()

    async def seal(self) -> None:
        """Seal all tails. Raises StoreUnavailable."""
        while streams := self._tails.everything():
            await self._database.alone(_sealing(self._files, streams), self._sealed)

    def _seal_what_is_full(self) -> None:
        if self._sealing or self._clock.monotonic() < self._seal_again_at:
            return
        if streams := self._tails.full():
            self._sealing = True
            try:
                work = self._database.submit(_sealing(self._files, streams), self._sealed_what_was_full)
            except StoreUnavailable:
                return  # it is being closed
            work.add_done_callback(self._seal_done)

    def _sealed_what_was_full(self, sealed: Sealed) -> None:
        self._sealed(sealed)
        self._sealing = False
        # At once, so that it comes before the commits that wait, if there is too much to seal.
        self._seal_what_is_full()

    async def _seal_what_is_old(self) -> None:
        try:
            while streams := self._tails.old(self._clock.monotonic()):
                await self._database.alone(_sealing(self._files, streams), self._sealed)
        except StoreUnavailable as error:
            self._seal_failed(error)

    def _sealed(self, sealed: Sealed) -> None:
        for stream_id, size in sealed.tails:
            self._tails.sealed(stream_id, size)
        self._segment_bytes += sealed.grown
        self._seal_problem = ""

    def _seal_done(self, work: "asyncio.Future[Sealed]") -> None:
        error = None if work.cancelled() else work.exception()
        if error is not None:
            self._sealing = False
            self._seal_failed(error)

    def _seal_failed(self, error: BaseException) -> None:
        """Wait a while before the next seal. Appends go on while there is room for tails."""
        self._seal_again_at = self._clock.monotonic() + _SEAL_AGAIN_S
        if str(error) != self._seal_problem:
            _log.error("log_sealing_failed", reason=str(error))
        self._seal_problem = str(error)

    # ------------------------------------------------------------ now and then

    async def tend(self) -> None:
        """Do what is due. Raises StoreUnavailable."""
        try:
            await self._make_room()
        except StoreUnavailable:
            if not self.space.give_up_reserve():
                raise
            await self._make_room()
        if self._clock.monotonic() >= self._seal_again_at:
            self._seal_what_is_full()
            await self._seal_what_is_old()

    async def _make_room(self) -> None:
        """Remove whatever is to be removed."""
        await self._remove(lambda connection: purge(connection, self._files))
        if self._clock.monotonic() >= self._retention_due:
            await self._expire()
        await self._keep_the_limit()
        await self._database.alone(lambda _: self.space.hold_reserve())

    def look_at_retention(self) -> None:
        """Have the next `tend` remove what has expired."""
        self._retention_due = self._clock.monotonic()

    async def _expire(self) -> None:
        groups = self._catalog.groups_by_id()
        found = {number: self._cutoff(group) for number, group in groups.items()}
        cutoffs = {number: cutoff for number, cutoff in found.items() if cutoff is not None}
        await self._remove(lambda connection: expire(connection, self._files, cutoffs))
        days = [(number, group.retention_days) for number, group in groups.items()]
        at = int(self._clock.now() * 1000)
        await self._database.alone(lambda connection: empty_streams(connection, at, days), self._catalog.gone)
        self._retention_due = self._clock.monotonic() + _RETENTION_PERIOD_S

    async def _remove(self, step: Callable[[sqlite3.Connection], Removed]) -> Removed:
        """Remove slice after slice; return the last one."""
        while True:
            removed = await self._database.alone(step, self._removed)
            if not removed.more:
                return removed

    def _removed(self, removed: Removed) -> None:
        self._catalog.resize(removed.groups)
        self._segment_bytes -= removed.freed
        for stream_id, size in removed.tails:
            self._tails.sealed(stream_id, size)


def _sealing(files: SegmentFiles, streams: Sequence[int]) -> Callable[[sqlite3.Connection], Sealed]:
    return lambda connection: seal(connection, files, streams)


def _evicting(files: SegmentFiles, excess: int) -> Callable[[sqlite3.Connection], Removed]:
    return lambda connection: evict(connection, files, excess)
