"""What a container has written, record by record, from any place on: what its output is shipped from.

A record is what the Engine keeps of one line, or of a part of at most 16 KiB of a longer one. Each has a mark: a short
string that finds it again among what is there later, after restarts of the agent and the Engine, and rotations.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol

__all__ = ["NOWHERE", "Lost", "Mark", "OutputReader", "Record", "Spool"]

#: The offset of a record in a file that isn't known.
NOWHERE: Final = -1

Stream = Literal["stdout", "stderr"]


class Mark(NamedTuple):
    """Where a reader stands: behind this record. `check` None: behind everything up to that time (nanoseconds).

    `offset`: where the record begins in whichever file has it now; files are renamed, but never rewritten.
    """

    at_ns: int
    check: int | None = None
    offset: int = NOWHERE

    def __str__(self) -> str:
        return f"{self.at_ns}" if self.check is None else f"{self.at_ns}.{self.check:08x}.{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Mark":
        """Read what `str` gives. Raises ValueError."""
        at, _, rest = text.partition(".")
        if not rest:
            return cls(int(at))
        check, _, offset = rest.partition(".")
        return cls(int(at), int(check, 16), int(offset))


class Record(NamedTuple):
    """One record. `text` has the line's end, if this is the end of a line."""

    at_ns: int
    stream: Stream
    text: str
    offset: int = NOWHERE

    @property
    def mark(self) -> Mark:
        """The mark of a reader that stands behind this record."""
        return Mark(self.at_ns, zlib.crc32(self.text.encode(), self.stream == "stderr"), self.offset)


class Lost(NamedTuple):
    """Something that was to be read here isn't there. `since_ns`: what is missing is younger; 0: not known.

    `sure` False: there may have been nothing.
    """

    since_ns: int
    why: str
    sure: bool = True


class Spool(NamedTuple):
    """How many files the Engine keeps of a container's output, and of which size."""

    files: int
    file_bytes: int

    @property
    def full_bytes(self) -> int:
        """With as much in them, some may have been rotated away."""
        return (self.files - 1) * self.file_bytes

    @classmethod
    def of(cls, options: Mapping[str, str]) -> "Spool":
        """Read the options of the driver json-file. Without them a single file grows for ever."""
        size = options.get("max-size", "").lower().removesuffix("b")
        unit = {"k": 10**3, "m": 10**6, "g": 10**9}.get(size[-1:], 0)
        number = size[:-1] if unit else size
        return cls(int(options.get("max-file") or 1), int(float(number) * (unit or 1)) if number else 2**63)


class OutputReader(Protocol):
    """Reads one container's output. Not to be used by two at once."""

    async def read(self, size: int) -> Sequence[Record | Lost]:
        """Return the next records, of about `size` bytes together; nothing if there are none at the moment.

        Raises EngineErrors. Cancelled, or raising, it may have passed something over: open another one.
        """
        ...

    def waiting(self) -> int:
        """Return about how many bytes there are to read, as far as that can be told without waiting."""
        ...

    def missing(self) -> Lost | None:
        """Return what is missing behind the last record, of an output that has ended; only once."""
        ...
