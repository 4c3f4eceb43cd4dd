"""Reading the files of Docker's driver json-file: NAME is written, NAME.1 was written before it, and so on.

Read directly, since the Engine's own way to follow a log loses what it promises to keep: an Engine 20.10 that falls
behind a rotation passes over whole files without a word, and one that meets a line that a full disk has torn passes
over what it has buffered behind it. Beside that it costs the Engine as much as writing them.

A rotation renames each file to the next name, the oldest first, and never rewrites one. So whoever holds a file open
knows it by its inode under whatever name, and the next one is what has the name before. Nothing here writes.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from agent.engine.facts import parse_ns
from agent.engine.output import NOWHERE, Lost, Mark, Record, Spool, Stream

__all__ = ["LogFileReader", "open_log_file"]

_CHUNK: Final = 64 * 1024
#: What is read in the event loop: it was written just now, so it needn't be fetched from the disk.
_AT_ONCE: Final = 16 * 1024
#: A record has at most 16 KiB of text, which JSON makes six times as much; beyond this it is no record.
_RECORD_MAX: Final = 512 * 1024
#: How every record begins. In the midst of a line it is what was written after a write that was cut off.
_BEGIN: Final = b'{"log":"'
#: A rotation takes less than a millisecond; so often, and so far apart, it is looked whether it is over.
_TRIES: Final = 50
_RENAMING_S: Final = 0.002

_TORN: Final = "a record in the Engine's log file is torn (its disk was full, or the machine went down)"
_ROTATED: Final = "it was rotated out of the Engine's log files before it could be shipped"
_TRUNCATED: Final = "the Engine's log file was cut off by somebody"

Found = tuple[int, int]
_T = TypeVar("_T")


class _Entry(msgspec.Struct, gc=False):
    """A line of the file."""

    log: str
    time: str
    stream: Stream = "stdout"


_decoder: Final = msgspec.json.Decoder(_Entry)


async def open_log_file(path: Path, position: str, *, spool: Spool) -> "LogFileReader":
    """Open a container's log behind `position` (a Mark's text; "": the beginning). `spool`: in what it is kept.

    Raises OSError if there is none (any more), or it can't be read.
    """
    reader = LogFileReader(path, spool=spool)
    try:
        await _in_thread(lambda: reader.seek(position))
    except BaseException:
        reader.close()
        raise
    return reader


class LogFileReader:
    """Reads one container's files in the order in which they were written. Implements OutputReader."""

    def __init__(self, path: Path, *, spool: Spool) -> None:
        self._path = str(path)
        self._spool = spool
        self._fd = -1
        self._found: Found = (0, 0)
        #: Where in the file the next record begins, and what has been read of it.
        self._offset = 0
        self._rest = b""
        #: The last record's time. What isn't younger than `_skip_ns` was there before.
        self._at_ns = 0
        self._skip_ns = 0
        self._lost: Lost | None = None

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def waiting(self) -> int:
        """See OutputReader: in this file, and in those that were written after it."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return 0
        end = self._offset + len(self._rest)
        if (status.st_dev, status.st_ino) == self._found:
            return abs(status.st_size - end)
        return max(os.fstat(self._fd).st_size - end, 0) + self._in_later_files()

    def _in_later_files(self) -> int:
        size = 0
        for number in range(self._number() or self._spool.files):
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(self._name(number)).st_size
        return size

    async def read(self, size: int) -> Sequence[Record | Lost]:
        """See OutputReader."""
        if self.waiting() <= _AT_ONCE:
            return self.read_now(size)
        return await _in_thread(lambda: self.read_now(size))

    def missing(self) -> Lost | None:
        """See OutputReader."""
        if self._rest:
            self._drop_rest()
        lost, self._lost = self._lost, None
        return lost

    # ------------------------------------------------------------ finding the place

    def seek(self, position: str) -> None:
        """Go behind `position`. Raises OSError."""
        mark, why = _parse(position)
        chain, full = self._open_all()
        if not chain:
            raise FileNotFoundError(self._path)
        self._fd, self._offset = chain[-1], 0
        if mark is None:
            if why:
                self._lost = Lost(0, why)
            elif full:
                self._lost = Lost(0, _ROTATED, sure=False)
        elif (place := _find(chain, mark)) is not None:
            self._fd, self._offset = place
            self._at_ns = mark.at_ns
        else:
            self._at_ns = self._skip_ns = mark.at_ns
            if mark.check is not None:
                self._lost = Lost(mark.at_ns, _ROTATED)
        for fd in chain:
            if fd != self._fd:
                os.close(fd)
        self._found = _identity(self._fd)

    def _open_all(self) -> tuple[list[int], bool]:
        """Open all files, the newest first, and tell whether some may have been before them.

        Tried again while they are being renamed: a name that is missing just then would look like the last one.
        """
        for _ in range(_TRIES):
            chain, before = self._open_chain()
            if not before:
                return [], False
            if list(before) == list(range(len(before))) and before == self._names():
                return chain, self._is_full(chain)
            for fd in chain:
                os.close(fd)
            time.sleep(_RENAMING_S)
        return self._open_chain()[0], True

    def _open_chain(self) -> tuple[list[int], dict[int, Found]]:
        """Open what there is. Renamed meanwhile, a file may be met twice, but none is missed."""
        names = self._names()
        chain: dict[Found, int] = {}
        for number in names:
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(self._name(number), os.O_RDONLY | os.O_CLOEXEC)
                if (found := _identity(fd)) in chain:
                    os.close(fd)
                else:
                    chain[found] = fd
        return list(chain.values()), names

    def _names(self) -> dict[int, Found]:
        """Return which file each name is of, without those that are missing."""
        names: dict[int, Found] = {}
        for number in range(self._spool.files):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(self._name(number))
                names[number] = (status.st_dev, status.st_ino)
        return names

    def _is_full(self, chain: Sequence[int]) -> bool:
        """Tell whether there may have been more. A rotation begins by removing the last, when the first is full."""
        missing = self._spool.files - len(chain)
        return (not missing and bool(chain[1:])) or (
            missing == 1 and os.fstat(chain[0]).st_size >= self._spool.file_bytes
        )

    def _name(self, number: int) -> str:
        return f"{self._path}.{number}" if number else self._path

    # ------------------------------------------------------------ reading

    def read_now(self, size: int) -> list[Record | Lost]:
        """Do what `read` does, in this thread."""
        items: list[Record | Lost] = []
        taken = 0
        while taken < size:
            chunk = os.pread(self._fd, _CHUNK, self._offset + len(self._rest))
            if not chunk:
                if not self._go_on():
                    break
                continue
            taken += len(chunk)
            *lines, rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                items += self._take(line)
                self._offset += len(line) + 1
            self._rest = rest
            if len(rest) > _RECORD_MAX:
                self._drop_rest()
        return items

    def _take(self, line: bytes) -> Iterator[Record | Lost]:
        """Return the record of a line, and before it what is missing there."""
        record = self._decode(line, 0)
        if record is None:
            # Behind a record that was cut off the next one begins in the midst of the line.
            again = line.rfind(_BEGIN)
            record = self._decode(line, again) if again > 0 else None
            self._miss(_TORN)
        if record is None:
            return
        if self._skip_ns:
            if record.at_ns <= self._skip_ns:
                return
            self._skip_ns = 0
        if self._lost is not None:
            yield self._lost
            self._lost = None
        self._at_ns = record.at_ns
        yield record

    def _decode(self, line: bytes, start: int) -> Record | None:
        try:
            entry = _decoder.decode(line[start:] if start else line)
            return Record(parse_ns(entry.time), entry.stream, entry.log, self._offset)
        except (msgspec.MsgspecError, ValueError):
            return None

    def _miss(self, why: str) -> None:
        """Note that something is missing here; the next record tells until when."""
        if self._lost is None:
            self._lost = Lost(self._at_ns, why)

    def _drop_rest(self) -> None:
        self._miss(_TORN)
        self._offset += len(self._rest)
        self._rest = b""

    # ------------------------------------------------------------ at the end of a file

    def _go_on(self) -> bool:
        """At the end of the file: tell whether there may be more, in this file or in the next one."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return False
        end = self._offset + len(self._rest)
        if (status.st_dev, status.st_ino) == self._found:
            if status.st_size >= end:
                return False
            self._miss(_TRUNCATED)
            self._offset, self._rest = 0, b""
            return True
        if os.pread(self._fd, 1, end):
            return True
        return self._go_to_next()

    def _go_to_next(self) -> bool:
        """Go to the file that was written after this one. Not at once, if a rotation is under way."""
        number = self._number()
        try:
            fd = os.open(self._name(number - 1) if number else self._oldest(), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if number != self._number():
            os.close(fd)
            return True
        if self._rest:
            self._drop_rest()
        if not number:
            self._miss(_ROTATED)
        self.close()
        self._fd, self._found, self._offset = fd, _identity(fd), 0
        return True

    def _number(self) -> int:
        """Return the number in this file's name now; 0 if it is gone. Files move upwards only, so none is missed."""
        for number in range(1, self._spool.files):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(self._name(number))
                if (status.st_dev, status.st_ino) == self._found:
                    return number
        return 0

    def _oldest(self) -> str:
        return self._name(max(self._names(), default=0))


async def _in_thread(work: Callable[[], _T]) -> _T:
    """Run `work` in a thread to its end, also when cancelled: files must not be closed under it."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def _parse(position: str) -> tuple[Mark | None, str]:
    """Return the mark, None for the beginning; and why, if it can't be read."""
    if not position:
        return None, ""
    try:
        return Mark.parse(position), ""
    except ValueError:
        return None, f"it isn't known how far this output was shipped: {position!r}"


def _identity(fd: int) -> Found:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _find(chain: Sequence[int], mark: Mark) -> tuple[int, int] | None:
    """Return the file with the mark's record in it, and where the next record begins; None if it is in none."""
    if mark.check is None:
        return None
    for fd in chain:
        if mark.offset != NOWHERE:
            line = os.pread(fd, _RECORD_MAX, mark.offset).partition(b"\n")[0]
            if _is(line, mark):
                return fd, mark.offset + len(line) + 1
        else:
            with contextlib.closing(_lines(fd)) as lines:
                for offset, line in lines:
                    if _is(line, mark):
                        return fd, offset + len(line) + 1
    return None


def _lines(fd: int) -> Generator[tuple[int, bytes]]:
    offset = 0
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        for line in file:
            yield offset, line.removesuffix(b"\n")
            offset += len(line)


def _is(line: bytes, mark: Mark) -> bool:
    start = max(line.rfind(_BEGIN), 0)
    try:
        entry = _decoder.decode(line[start:])
        found = Record(parse_ns(entry.time), entry.stream, entry.log, mark.offset)
    except (msgspec.MsgspecError, ValueError):
        return False
    return found.mark == mark
