"""Opening what a clean end, a crash or a lost catalog has left: afterwards files and catalog agree.

Files are cut at what the catalog knows of them, and those it doesn't know are removed: both are seals that a crash cut
short, and their events are in the tail still. A catalog that is missing, or that SQLite can't read, is made again from
the blocks, which explain themselves; what was in the tail then is lost here, and agents ship again what they have.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from controlplane.logs.api import LogGroup, LogStream
from controlplane.logs.blocks import BlockHeader, blocks_in
from controlplane.logs.database import transaction
from controlplane.logs.schema import load_groups, prepare, used_bytes
from controlplane.logs.sealing import Tails, load_tails
from controlplane.logs.segments import SegmentFiles, on_disk

__all__ = ["Opened", "drop_write_ahead", "recover", "set_damaged_aside"]

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """What is there. `segment_bytes`: what the files take of the disk."""

    groups: Sequence[tuple[int, LogGroup, int]]
    tails: Tails
    segment_bytes: int
    catalog_bytes: int


def set_damaged_aside(catalog: Path) -> None:
    """Rename a catalog that SQLite can't make sense of, so that a new one is made. Raises OSError."""
    aside = catalog.with_suffix(".damaged.db")
    _log.error("log_catalog_damaged", path=str(catalog), kept_as=str(aside))
    drop_write_ahead(catalog)
    if catalog.exists():
        catalog.replace(aside)


def drop_write_ahead(catalog: Path) -> None:
    """Remove what SQLite has written ahead of a catalog that isn't there: it would be taken for the new one's."""
    for suffix in ("-wal", "-shm"):
        catalog.with_name(catalog.name + suffix).unlink(missing_ok=True)


def recover(connection: sqlite3.Connection, files: SegmentFiles, limit_bytes: int, now: float) -> Opened:
    """Bring catalog and files together. `now`: monotonic seconds, `limit_bytes`: the store's.

    Raises OSError, sqlite3.Error, StoreUnavailable.
    """
    with transaction(connection):
        is_new = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        prepare(connection)
        if is_new:
            _rebuild(connection, files)
    known = dict(connection.execute("SELECT id, size FROM segments"))
    used = 0
    for segment, size in files.found():
        expected = known.get(segment)
        if expected is None:
            files.remove(segment)
            continue
        if size > expected:
            files.cut(segment, expected)
        used += on_disk(min(size, expected))
    return Opened(load_groups(connection), load_tails(connection, limit_bytes, now), used, used_bytes(connection))


# ---------------------------------------------------------------- without a catalog


def _rebuild(connection: sqlite3.Connection, files: SegmentFiles) -> None:
    """Fill a new catalog from the blocks of all segments, in the caller's transaction."""
    builder = _Builder(connection)
    for segment, size in sorted(files.found()):
        blocks = list(blocks_in(files.read_all(segment)))
        if blocks:
            builder.add(segment, blocks)
        else:
            _log.warning("log_segment_unreadable", path=str(files.path(segment)), size=size)
    if builder.blocks:
        builder.finish()
        _log.warning("log_catalog_rebuilt", blocks=builder.blocks, streams=len(builder.streams))


class _Builder:
    """Of groups and streams the newest block knows best, which is the one of the highest number."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._groups: dict[str, tuple[int, int, LogGroup]] = {}
        self.streams: dict[tuple[str, str], tuple[int, LogStream]] = {}
        self._segments: dict[int, int] = {}
        self.blocks = 0

    def add(self, segment: int, blocks: Sequence[tuple[int, int, BlockHeader]]) -> None:
        for *_, header in blocks:
            self._learn(segment, header)
        last_offset, last_length, last = blocks[-1]
        group_id = self._groups[last.group.name][0]
        stream_id = self.streams[last.group.name, last.stream.name][0]
        self._connection.execute(
            "INSERT INTO segments (id, group_id, stream_id, size, first_at, last_at) VALUES (?, ?, ?, ?, ?, ?)",
            (
                segment,
                group_id,
                stream_id,
                last_offset + last_length,
                min(header.first_at for *_, header in blocks),
                max(header.last_at for *_, header in blocks),
            ),
        )
        self._connection.executemany(
            "INSERT INTO blocks (group_id, stream_id, segment, offset, length, first_at, last_at, first_number, count,"
            " size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (group_id, stream_id, segment, offset, length, h.first_at, h.last_at, h.first_number, h.count, h.size)
                for offset, length, h in blocks
            ],
        )
        self._segments[stream_id] = segment
        self.blocks += len(blocks)

    def _learn(self, segment: int, header: BlockHeader) -> None:
        group, stream = header.group, header.stream
        number, known_of, known = self._groups.get(group.name, (len(self._groups) + 1, -1, group))
        self._groups[group.name] = (number, max(segment, known_of), group if segment >= known_of else known)
        name = (group.name, stream.name)
        stream_id, before = self.streams.get(name, (len(self.streams) + 1, stream))
        first_at = min(header.first_at, header.first_at if before is stream else before.first_at or 0)
        last_at = max(header.last_at, header.last_at if before is stream else before.last_at or 0)
        size = header.size + (0 if before is stream else before.stored_bytes)
        newer = stream if stream.next_number >= before.next_number else before
        self.streams[name] = (stream_id, replace(newer, first_at=first_at, last_at=last_at, stored_bytes=size))

    def finish(self) -> None:
        """Write groups and streams."""
        self._connection.executemany(
            "INSERT INTO groups (id, name, body) VALUES (?, ?, ?)",
            [(number, name, msgspec.msgpack.encode(group)) for name, (number, _, group) in self._groups.items()],
        )
        self._connection.executemany(
            "INSERT INTO streams (id, group_id, name, created_at, first_at, last_at, last_ingested_at, next_number,"
            " shipped_next, position, ended, stored_bytes, segment) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    number,
                    self._groups[stream.group][0],
                    stream.name,
                    stream.created_at,
                    stream.first_at,
                    stream.last_at,
                    stream.last_ingested_at,
                    stream.next_number,
                    stream.shipped_next,
                    stream.position,
                    stream.ended,
                    stream.stored_bytes,
                    self._segments[number],
                )
                for number, stream in self.streams.values()
            ],
        )
