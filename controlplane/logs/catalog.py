"""The catalog: groups, streams, and how far each has been shipped; whatever keeps the events stands on it.

Groups are in memory as well (there are few); streams, of which there may be hundreds of thousands, are not. What
happens to memory happens in callbacks of the commit itself, so a caller who is cancelled leaves both alike.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec.structs import replace

from controlplane.logs.api import (
    GroupExists,
    GroupMissing,
    LogEvent,
    LogGroup,
    LogStream,
    Shipment,
    StreamExists,
    StreamMissing,
    size_of,
)
from controlplane.logs.database import Database
from controlplane.logs.schema import (
    STREAM_COLUMNS,
    find_group,
    find_stream,
    load_groups,
    prefix_bound,
    prepare,
    stream_of,
)

__all__ = ["Appended", "Catalog", "advance"]


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append comes to. `events`: those that were not there yet, the first of them numbered `first_number`.

    `stream`: as it is afterwards.
    """

    group_id: int
    stream_id: int
    events: Sequence[LogEvent]
    first_number: int
    first_at: int
    last_at: int
    size: int
    stream: LogStream


def advance(
    connection: sqlite3.Connection,
    group: str,
    stream: str,
    events: Sequence[LogEvent],
    *,
    ingested_at: int,
    shipment: Shipment | None,
) -> Appended:
    """Number events and note them and their shipment at their stream, in the caller's transaction.

    Raises GroupMissing, StreamMissing.
    """
    group_id, stream_id, known = find_stream(connection, group, stream)
    behind = 0 if shipment is None else shipment.first + len(events)
    if shipment is not None:
        events = events[max(known.shipped_next - shipment.first, 0) :]
    times = [event.at for event in events]
    first_at, last_at = (min(times), max(times)) if times else (0, 0)
    size = sum(size_of(event.text) for event in events)
    new = known
    if events:
        new = replace(
            known,
            first_at=first_at if known.first_at is None else min(known.first_at, first_at),
            last_at=last_at if known.last_at is None else max(known.last_at, last_at),
            last_ingested_at=ingested_at,
            next_number=known.next_number + len(events),
            stored_bytes=known.stored_bytes + size,
        )
    if shipment is not None and behind >= known.shipped_next:
        new = replace(new, shipped_next=behind, position=shipment.position, ended=known.ended or shipment.end)
    if new != known:
        _update(connection, stream_id, new)
    return Appended(group_id, stream_id, events, known.next_number, first_at, last_at, size, new)


def _update(connection: sqlite3.Connection, stream_id: int, stream: LogStream) -> None:
    connection.execute(
        "UPDATE streams SET first_at = ?, last_at = ?, last_ingested_at = ?, next_number = ?, shipped_next = ?,"
        " position = ?, ended = ?, stored_bytes = ? WHERE id = ?",
        (
            stream.first_at,
            stream.last_at,
            stream.last_ingested_at,
            stream.next_number,
            stream.shipped_next,
            stream.position,
            stream.ended,
            stream.stored_bytes,
            stream_id,
        ),
    )


class Catalog:
    """Groups and streams over a Database.

    `on_deleted` is called when something was deleted, whose events may go. `check_room` is called in the writer's
    thread before a group or stream is made; it may raise StoreUnavailable.
    """

    def __init__(
        self,
        database: Database,
        *,
        on_deleted: Callable[[], None] = lambda: None,
        check_room: Callable[[], None] = lambda: None,
    ) -> None:
        self.database = database
        self._on_deleted = on_deleted
        self._check_room = check_room
        self._groups: dict[str, LogGroup] = {}
        self._ids: dict[int, str] = {}
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}

    def loaded(self, groups: Sequence[tuple[int, LogGroup, int]]) -> None:
        """Take what `load_groups` has read."""
        self._groups = {group.name: replace(group, stored_bytes=size) for _, group, size in groups}
        self._ids = {number: group.name for number, group, _ in groups}

    async def load(self) -> None:
        """Make the tables if there are none, and read the groups. Raises StoreUnavailable."""

        def load(connection: sqlite3.Connection) -> Sequence[tuple[int, LogGroup, int]]:
            prepare(connection)
            return load_groups(connection)

        await self.database.write(load, self.loaded)

    # ------------------------------------------------------------ groups

    def groups(self) -> Sequence[LogGroup]:
        """See LogStore."""
        return [self._groups[name] for name in sorted(self._groups)]

    def group(self, name: str) -> LogGroup:
        """See LogStore."""
        if name not in self._groups:
            raise GroupMissing(f"there is no log group {name}")
        return self._groups[name]

    def groups_by_id(self) -> dict[int, LogGroup]:
        """Return every group under its number in the catalog."""
        return {number: self._groups[name] for number, name in self._ids.items()}

    async def create_group(self, group: LogGroup) -> None:
        """See LogStore."""
        group = replace(group, stored_bytes=0)

        def create(connection: sqlite3.Connection) -> int:
            self._check_room()
            statement = "INSERT INTO groups (name, body) VALUES (?, ?) ON CONFLICT DO NOTHING"
            cursor = connection.execute(statement, (group.name, msgspec.msgpack.encode(group)))
            if not cursor.rowcount:
                raise GroupExists(f"there is a log group {group.name} already")
            return int(cursor.lastrowid or 0)

        def created(number: int) -> None:
            self._groups[group.name] = group
            self._ids[number] = group.name

        await self.database.write(create, created)

    async def change_group(self, name: str, change: Callable[[LogGroup], LogGroup]) -> None:
        """See LogStore."""

        def put(connection: sqlite3.Connection) -> LogGroup:
            row = connection.execute("SELECT body FROM groups WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise GroupMissing(f"there is no log group {name}")
            group = change(msgspec.msgpack.decode(row[0], type=LogGroup))
            connection.execute("UPDATE groups SET body = ? WHERE name = ?", (msgspec.msgpack.encode(group), name))
            return group

        def changed(group: LogGroup) -> None:
            self._groups[name] = replace(group, stored_bytes=self._groups[name].stored_bytes)

        await self.database.write(put, changed)

    async def delete_group(self, name: str) -> None:
        """See LogStore. The rows of its streams and events go later, in slices."""

        def delete(connection: sqlite3.Connection) -> int:
            number = find_group(connection, name)
            connection.execute("DELETE FROM groups WHERE id = ?", (number,))
            connection.execute("INSERT INTO doomed_groups VALUES (?)", (number,))
            return number

        def deleted(number: int) -> None:
            del self._groups[name], self._ids[number]
            for group, stream in list(self._waiting):
                if group == name:
                    self.wake(group, stream)
            self._on_deleted()

        await self.database.write(delete, deleted)

    def resize(self, changes: Sequence[tuple[int, int]]) -> None:
        """Add to the sizes of groups: (number in the catalog, bytes)."""
        for number, change in changes:
            if name := self._ids.get(number):
                group = self._groups[name]
                self._groups[name] = replace(group, stored_bytes=group.stored_bytes + change)

    # ------------------------------------------------------------ streams

    async def create_stream(self, group: str, name: str, *, at: int) -> None:
        """See LogStore."""

        def create(connection: sqlite3.Connection) -> None:
            self._check_room()
            statement = "INSERT INTO streams (group_id, name, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
            if not connection.execute(statement, (find_group(connection, group), name, at)).rowcount:
                raise StreamExists(f"the log group {group} has a stream {name} already")

        await self.database.write(create)

    async def delete_stream(self, group: str, name: str) -> None:
        """See LogStore."""

        def delete(connection: sqlite3.Connection) -> tuple[int, int]:
            group_id, stream_id, known = find_stream(connection, group, name)
            connection.execute("DELETE FROM streams WHERE id = ?", (stream_id,))
            connection.execute("INSERT INTO doomed_streams VALUES (?)", (stream_id,))
            return group_id, -known.stored_bytes

        def deleted(change: tuple[int, int]) -> None:
            self.resize([change])
            self.wake(group, name)
            self._on_deleted()

        await self.database.write(delete, deleted)

    async def stream(self, group: str, name: str) -> LogStream:
        """See LogStore."""
        return await self.database.read(lambda: find_stream(self.database.connection(), group, name)[2])

    async def streams(
        self,
        group: str,
        *,
        prefix: str = "",
        order: Literal["name", "last_event"] = "name",
        descending: bool = False,
        after: tuple[int, str] | None = None,
        limit: int = 50,
    ) -> Sequence[LogStream]:
        """See LogStore."""
        way, beyond = ("DESC", "<") if descending else ("ASC", ">")
        conditions: list[str] = ["s.group_id = ?"]
        arguments: list[object] = []
        if prefix:
            conditions.append("s.name >= ?")
            arguments.append(prefix)
            if (bound := prefix_bound(prefix)) is not None:
                conditions.append("s.name < ?")
                arguments.append(bound)
        if after is not None:
            conditions.append(
                f"s.name {beyond} ?" if order == "name" else f"(ifnull(s.last_at, 0), s.name) {beyond} (?, ?)"
            )
            arguments += after[1:] if order == "name" else after
        ordering = f"s.name {way}" if order == "name" else f"ifnull(s.last_at, 0) {way}, s.name {way}"
        return await self._page(group, f"WHERE {' AND '.join(conditions)} ORDER BY {ordering}", arguments, limit)

    async def _page(self, group: str, clause: str, arguments: list[object], limit: int) -> Sequence[LogStream]:
        def query() -> Sequence[LogStream]:
            connection = self.database.connection()
            statement = f"SELECT {STREAM_COLUMNS} FROM streams s {clause} LIMIT ?"
            rows = connection.execute(statement, (find_group(connection, group), *arguments, limit))
            return [stream_of(group, row) for row in rows]

        return await self.database.read(query)

    # ------------------------------------------------------------ waiting

    async def grown(self, group: str, stream: str, after: int) -> None:
        """See LogStore."""
        waiters = self._waiting.setdefault((group, stream), set())
        woken = asyncio.Event()
        waiters.add(woken)
        try:
            while True:
                woken.clear()
                try:
                    known = await self.stream(group, stream)
                except (GroupMissing, StreamMissing):
                    return
                if known.ended or known.next_number > after + 1:
                    return
                await woken.wait()
        finally:
            waiters.discard(woken)
            if not waiters and self._waiting.get((group, stream)) is waiters:
                del self._waiting[group, stream]

    def gone(self, streams: Iterable[tuple[int, str]]) -> None:
        """Have those look again who wait for streams that retention has removed: (group's number, name)."""
        for number, stream in streams:
            if group := self._ids.get(number):
                self.wake(group, stream)

    def wake(self, group: str, stream: str) -> None:
        """Have those who wait for a stream look again."""
        for woken in self._waiting.get((group, stream), ()):
            woken.set()
