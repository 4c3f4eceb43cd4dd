"""How much the log store may take: its own limit, and what it leaves of the disk to others.

- No more than the limit that was set (10 GiB if none was).
- While the disk has less than a reserve free (a tenth of it, 1 GiB at most), the oldest logs go, whoever filled it;
  but never the last tenth of the limit: lines that are there are worth more than those to come.
- Below half the reserve nothing is taken any more, so that the state's journal on the same disk never runs out.
- A file of some megabytes holds room that is given up when others leave none at all: removing takes room, too.

What SQLite writes ahead and keeps free, up to some 20 MiB, comes on top.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from controlplane.logs.api import StoreUnavailable
from controlplane.logs.words import size_in_words

__all__ = ["DEFAULT_LIMIT_BYTES", "Disk", "Space"]

DEFAULT_LIMIT_BYTES: Final = 10 * 1024**3
_RESERVE_FILE: Final = "reserve"
_RESERVE_FILE_BYTES: Final = 4 * 1024**2
_RESERVE_FILE_PART: Final = 16
_RESERVE_BYTES: Final = 1024**3
_RESERVE_PART: Final = 10
_KEPT_PART: Final = 10
#: What may be there beyond the limit until the oldest is gone: a part of it.
_SLACK_PART: Final = 16
_MIN_SLACK_BYTES: Final = 256 * 1024


class Disk(msgspec.Struct, frozen=True):
    """A file system's size and what is free of it, in bytes."""

    total: int
    free: int


class Space:
    """Decides how much may be there. `measure` asks the file system of a directory."""

    def __init__(self, root: Path, limit_bytes: int, *, measure: Callable[[Path], Disk] | None = None) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self._measure = measure or _measure

    def disk(self) -> Disk:
        """Return what the file system has. Raises StoreUnavailable."""
        try:
            return self._measure(self.root)
        except OSError as error:
            raise StoreUnavailable(f"the log store can't tell what is free in {self.root}: {error}") from error

    def allowed(self, used: int) -> int:
        """Return how much may be there, of which `used` is. Raises StoreUnavailable."""
        disk = self.disk()
        kept = min(used, self.limit_bytes // _KEPT_PART)
        return min(self.limit_bytes, max(used + disk.free - _reserve(disk), kept))

    def check(self, used: int) -> None:
        """Raise StoreUnavailable if nothing may be added to `used`."""
        disk = self.disk()
        needed = _reserve(disk) // 2
        if disk.free < needed:
            raise StoreUnavailable(
                f"no logs are taken: {size_in_words(disk.free)} of {size_in_words(disk.total)} are free on the disk of"
                f" {self.root}, and the last {size_in_words(needed)} are kept for the control plane itself; make room"
                " there"
            )
        if used > self.limit_bytes + max(self.limit_bytes // _SLACK_PART, _MIN_SLACK_BYTES):
            raise StoreUnavailable(
                f"no logs are taken: {size_in_words(used)} are kept in {self.root}, the limit is"
                f" {size_in_words(self.limit_bytes)}, and the oldest couldn't be removed yet"
            )

    def hold_reserve(self) -> None:
        """Take the room that making room takes, if the disk has it. Raises OSError, StoreUnavailable."""
        path = self.root / _RESERVE_FILE
        disk = self.disk()
        if path.exists() or disk.free < _reserve(disk) // 2:
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(
                descriptor, 0, min(_RESERVE_FILE_BYTES, min(disk.total, self.limit_bytes) // _RESERVE_FILE_PART)
            )
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(descriptor)

    def give_up_reserve(self) -> bool:
        """Give that room up; False if there is none."""
        try:
            (self.root / _RESERVE_FILE).unlink()
        except OSError:
            return False
        return True

    def explain(self, error: Exception) -> str:
        """Return why a read or write failed, in words for users."""
        try:
            disk = self.disk()
        except StoreUnavailable:
            return f"the log store in {self.root} can't be used: {error}"
        return f"the log store in {self.root} can't be used: {error} ({size_in_words(disk.free)} are free there)"


def _measure(path: Path) -> Disk:
    usage = shutil.disk_usage(path)
    return Disk(usage.total, usage.free)


def _reserve(disk: Disk) -> int:
    return min(_RESERVE_BYTES, disk.total // _RESERVE_PART)
