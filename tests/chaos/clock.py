"""A daemon whose wall clock can be moved while it runs: libfaketime, from Debian, preloaded.

Only the time of day is moved (CLOCK_REALTIME); monotonic clocks run on. dockerd asks the kernel past any library, so an
Engine's clock stays right, as do those of its containers.
"""

from pathlib import Path
from typing import Final

from tests.packages import install

__all__ = ["WallClock"]

_LIBRARIES: Final = "/usr/lib/*-linux-gnu/faketime/libfaketime.so.1"


class WallClock:
    """The clock of what is started with `environment`; right until it is shifted."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.shift(0)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def shift(self, seconds: float) -> None:
        """From now on be this much ahead of the true time, or behind it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+}\n")
        new.rename(self._file)


def _library() -> Path:
    if not (found := _find()):
        install("libfaketime")
        found = _find()
    return found[0]


def _find() -> list[Path]:
    return sorted(Path("/").glob(_LIBRARIES.lstrip("/")))
