"""The Engine's disk: while it is full, the Engine drops what containers say without a word. So it is watched."""

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from agent.engine.output import Lost
from agent.logs.stream import LogStream, PendingGap
from homeport.clock import Clock

__all__ = ["NO_ROOM", "DiskWatch", "is_full"]

_log = structlog.get_logger(__name__)

_LOOK_EVERY_S: Final = 2.0
#: A file system refuses to write while some blocks are left: ext4 and XFS keep so many, or a fiftieth, for themselves.
_RESERVED_BLOCKS: Final = 4096 + 64
_RESERVED_PART: Final = 40

NO_ROOM: Final = "the disk of the Docker Engine was full"


def is_full(status: os.statvfs_result) -> bool:
    """Tell whether a file system has no room even for root."""
    return status.f_bfree <= min(_RESERVED_BLOCKS, status.f_blocks // _RESERVED_PART)


class DiskWatch:
    """Marks what may be missing of the containers that ran while the disk was full, once it has room again.

    `directory`: where the Engine keeps its data, None while that isn't known. `streams`: what is shipped now.
    """

    def __init__(
        self,
        directory: Callable[[], str | None],
        streams: Callable[[], Iterable[LogStream]],
        *,
        clock: Clock,
        read: Callable[[str], os.statvfs_result] = os.statvfs,
    ) -> None:
        self._directory = directory
        self._streams = streams
        self._clock = clock
        self._read = read
        self._running: list[LogStream] = []
        self._since_ns: int | None = None

    async def run(self) -> None:
        """Look at the disk every few seconds, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once. A disk that can't be seen from here is taken for one with room."""
        directory = self._directory()
        full = False
        if directory is not None:
            try:
                full = is_full(await asyncio.to_thread(self._read, directory))
            except OSError:
                full = False
        before, self._running = self._running, [each for each in self._streams() if not each.stopped]
        now_ns = int(self._clock.now() * 1e9)
        if full:
            self._begin(before, now_ns)
        elif self._since_ns is not None:
            self._end(now_ns)

    def _begin(self, before: Iterable[LogStream], now_ns: int) -> None:
        if self._since_ns is None:
            self._since_ns = now_ns
            _log.warning("the Docker Engine's disk is full: what containers say is lost until it has room")
        for stream in (*before, *self._running):
            if stream.no_room_since_ns is None:
                stream.no_room_since_ns = self._since_ns

    def _end(self, now_ns: int) -> None:
        self._since_ns = None
        _log.info("the Docker Engine's disk has room again")
        for stream in self._streams():
            if stream.no_room_since_ns is not None:
                lost = Lost(stream.no_room_since_ns, NO_ROOM, sure=False)
                stream.gaps.append(PendingGap(lost, now_ns))
                stream.no_room_since_ns = None
