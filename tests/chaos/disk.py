"""A small file system of a daemon's own, that can be filled up: ext4 in a file, on a loop device."""

import os
from pathlib import Path
from typing import Final

from tests.e2e.hosts import sh

__all__ = ["SmallDisk"]

_CHUNK: Final = bytes(64 * 1024)


class SmallDisk:
    """A file system of `mib` MiB, mounted at `where`."""

    def __init__(self, where: Path, *, mib: int) -> None:
        self.where = where
        self._image = where.with_suffix(".img")
        self._ballast = where / "ballast"
        where.mkdir()
        with self._image.open("wb") as image:
            image.truncate(mib * 1024 * 1024)
        sh("mkfs.ext4", "-q", "-m", "0", str(self._image))
        sh("mount", "-o", "loop", str(self._image), str(where))

    def fill(self) -> None:
        """Leave no room, to the last byte."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (len(_CHUNK), 512, 1):
                try:
                    while True:
                        os.write(ballast.fileno(), _CHUNK[:size])
                except OSError:  # no room for so much
                    continue

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        sh("umount", "--lazy", str(self.where))
        self._image.unlink()
