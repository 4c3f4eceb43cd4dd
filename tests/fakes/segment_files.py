"""Segment files that fail, or lose power, where a test wants it."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from controlplane.logs.segments import SegmentFiles

__all__ = ["FailingFiles", "PowerLost"]


class PowerLost(Exception):
    """The machine is gone; whatever is done afterwards doesn't happen."""


class FailingFiles(SegmentFiles):
    """`steps_left`: after so many steps (each write, sync and removal is two) power is lost; None: never.

    `full`: writes fail for want of room, half way. A write that is cut short leaves a part of its data.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.steps_left: int | None = None
        self.lost = False
        self.full = False
        #: Segment -> how much of it would survive.
        self._synced: dict[int, int] = {}

    def write(self, segment: int, offset: int, data: bytes) -> bool:
        self._synced.setdefault(segment, self._size(segment))
        if self.full:
            super().write(segment, offset, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path(segment)))
        try:
            self._step()
        except PowerLost:
            super().write(segment, offset, data[: len(data) // 2])
            raise
        written = super().write(segment, offset, data)
        self._step()
        return written

    def sync(self, segments: Iterable[int], *, new: Iterable[int]) -> None:
        segments = list(segments)
        self._step()
        super().sync(segments, new=new)
        self._synced.update((segment, self._size(segment)) for segment in segments)
        self._step()

    def remove(self, segment: int) -> None:
        self._step()
        super().remove(segment)
        self._synced.pop(segment, None)
        self._step()

    def power_cut(self, part: float) -> None:
        """Leave of what wasn't synced as much as `part` of 1 tells, and of the rest zeros or nothing."""
        for segment, synced in self._synced.items():
            size = self._size(segment)
            if size > synced:
                kept = synced + int((size - synced) * part)
                os.truncate(self.path(segment), kept)
                if part > 0.5:
                    os.truncate(self.path(segment), size)
        self._synced.clear()

    def _step(self) -> None:
        if self.lost:
            raise PowerLost
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                self.lost = True
                raise PowerLost

    def _size(self, segment: int) -> int:
        try:
            return self.path(segment).stat().st_size
        except FileNotFoundError:
            return 0
