"""Output that was given up before it could be shipped: a note of each, kept until the control plane has been told."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from homeport.daemon import write_private
from homeport.ids import TaskId

__all__ = ["Unshipped", "UnshippedNotes"]

_log = structlog.get_logger(__name__)

#: Of more notes the oldest are dropped.
_MAX_NOTES: Final = 5000


class Unshipped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A container whose output can't be had any more. `at`: when it was given up, epoch seconds."""

    task_id: TaskId
    container: str
    runtime_id: str
    at: float
    why: str


class UnshippedNotes:
    """The notes of one agent, in a small file. One that can't be read is begun anew: what it says is lost anyway."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.notes: tuple[Unshipped, ...] = ()

    def load(self) -> None:
        """Read the file."""
        try:
            self.notes = msgspec.json.decode(self._path.read_bytes(), type=tuple[Unshipped, ...])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("notes of output that wasn't shipped can't be read", path=str(self._path), error=str(error))

    async def add(self, notes: Iterable[Unshipped]) -> None:
        """Keep notes; return once they are durable. With no room for them they are kept as long as this process lives:
        to hold the containers instead would keep the disk full.
        """
        await self._save((*self.notes, *notes)[-_MAX_NOTES:])

    async def remove(self, note: Unshipped) -> None:
        """Forget a note: it has been told. Should that not be durable, it is told once more."""
        await self._save(tuple(each for each in self.notes if each != note))

    async def _save(self, notes: tuple[Unshipped, ...]) -> None:
        self.notes = notes
        try:
            await asyncio.to_thread(write_private, self._path, msgspec.json.encode(notes))
        except OSError as error:
            _log.warning("notes of output that wasn't shipped can't be kept", path=str(self._path), error=str(error))
