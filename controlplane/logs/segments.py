"""Segment files: blocks of one stream, one after the other, in files named by number.

    ROOT/000012/000012345.seg

Names of groups and streams hold slashes, dots and whatever else Unicode has, so they never become paths. Only the
writer's thread writes; what lies beyond the size that the catalog knows is of no meaning, and is cut off by the next
write. Everything here blocks, and raises OSError.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["SEGMENT_BYTES", "SEGMENT_SPAN_MS", "SegmentFiles", "on_disk"]

#: A segment that is as large gets no more blocks. Files are what retention removes, so this is its grain.
SEGMENT_BYTES: Final = 4 * 1024 * 1024
#: Neither does one whose events would be as far apart, so that a slow stream's old lines go, too.
SEGMENT_SPAN_MS: Final = 86_400_000

_PER_DIRECTORY: Final = 1000
_NAME: Final = re.compile(r"(\d+)\.seg")
_CLUSTER: Final = 4096


def on_disk(size: int) -> int:
    """Return about what a file of this size takes of a disk."""
    return -(-size // _CLUSTER) * _CLUSTER


class SegmentFiles:
    """The files below `root`. Tests put one that fails in its place."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, segment: int) -> Path:
        """Return where a segment is kept."""
        return self.root / f"{segment // _PER_DIRECTORY:06d}" / f"{segment:09d}.seg"

    def write(self, segment: int, offset: int, data: bytes) -> bool:
        """Put `data` at `offset`, and nothing behind it. False if the file is shorter than that: it has lost something.

        Not safe before `sync`.
        """
        path = self.path(segment)
        if offset == 0:
            for directory in (self.root, path.parent):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT if offset == 0 else 0), 0o600)
        except FileNotFoundError:
            return False
        try:
            size = os.fstat(descriptor).st_size
            if size < offset:
                return False
            if size > offset:
                os.ftruncate(descriptor, offset)
            view = memoryview(data)
            while view:
                written = os.pwrite(descriptor, view, offset)
                view, offset = view[written:], offset + written
        finally:
            os.close(descriptor)
        return True

    def sync(self, segments: Iterable[int], *, new: Iterable[int]) -> None:
        """Have the disk keep what was written to these; `new` are those whose names it must learn as well."""
        for segment in segments:
            _sync(self.path(segment))
        directories = {self.path(segment).parent for segment in new}
        for directory in directories:
            _sync(directory)
        if directories:
            _sync(self.root)

    def read(self, segment: int, offset: int, length: int) -> bytes:
        """Return these bytes, or fewer if the file ends before. Raises FileNotFoundError."""
        descriptor = os.open(self.path(segment), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)

    def read_all(self, segment: int) -> bytes:
        """Return a whole segment."""
        return self.path(segment).read_bytes()

    def cut(self, segment: int, size: int) -> None:
        """Cut off what lies beyond `size`."""
        os.truncate(self.path(segment), size)

    def remove(self, segment: int) -> None:
        """Remove a segment; fine if it is gone."""
        self.path(segment).unlink(missing_ok=True)

    def found(self) -> Iterator[tuple[int, int]]:
        """Yield (segment, size) of every file."""
        if not self.root.exists():
            return
        with os.scandir(self.root) as directories:
            for directory in directories:
                if directory.is_dir(follow_symlinks=False):
                    yield from _segments_of(directory.path)


def _segments_of(directory: str) -> Iterator[tuple[int, int]]:
    with os.scandir(directory) as files:
        for file in files:
            if match := _NAME.fullmatch(file.name):
                yield int(match[1]), file.stat(follow_symlinks=False).st_size


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
