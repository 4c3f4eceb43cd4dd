"""What was measured at which commit: bench/hotpaths.json, newest last."""

import platform
import sysconfig
from pathlib import Path as FilePath
from typing import Annotated

import msgspec
from msgspec import Meta

from bench.hotpaths.reference import REFERENCE

__all__ = ["KEPT", "RECORDS", "Record", "add", "interpreter", "read", "write"]

RECORDS = FilePath(__file__).parents[1] / "hotpaths.json"
#: Records in the file; older ones are in the repository's history.
KEPT = 50

Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(gt=0)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measurement that was accepted. ValueError without the reference, which all the others are told by."""

    #: As `git describe --always --dirty` has it: "-dirty" is what became the commit after it.
    commit: Annotated[str, Meta(pattern="^[0-9a-f]{7,40}(-dirty)?$")]
    date: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d$")]
    reason: Text
    interpreter: Text
    #: Path -> instructions for one operation.
    instructions: dict[Text, Count]

    def __post_init__(self) -> None:
        if REFERENCE.name not in self.instructions:
            raise ValueError(f"the reference is missing: {REFERENCE.name}")


def interpreter() -> str:
    """Say which Python this is: its version, processor and compiler, and whether its build was optimised."""
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    parts = (platform.python_version(), platform.machine(), platform.python_compiler())
    return ", ".join((*parts, "optimised" if optimised else "not optimised"))


def read(path: FilePath = RECORDS) -> list[Record]:
    """Return the records, oldest first; none if there is no file. Raises msgspec.ValidationError."""
    return msgspec.json.decode(path.read_bytes(), type=list[Record]) if path.exists() else []


def add(records: list[Record], record: Record) -> list[Record]:
    """Return the records with one more, the oldest dropped beyond KEPT."""
    return [*records, record][-KEPT:]


def write(records: list[Record], path: FilePath = RECORDS) -> None:
    """Write the file."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(records), indent=2) + b"\n")
