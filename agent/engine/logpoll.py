"""Reading a container's log through the Engine's API, for an agent that may not read the Engine's files.

A log that is followed can't be relied on: an Engine 20.10 that falls behind a rotation passes over whole files without
a word. What it sends of a log that isn't followed is complete. So that is read, from as near to its end as the last
record known is found; a followed one only rings when there is something new, and what it says is thrown away.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Final

from agent.engine.errors import EngineError
from agent.engine.facts import parse_ns
from agent.engine.limits import Limits
from agent.engine.logs import STDERR, SYSTEM, read_pieces
from agent.engine.output import Lost, Mark, Record, Spool
from agent.engine.transport import Transport

__all__ = ["EngineLog"]

#: How many of the last lines are asked for, until the last record known is among them. Then: all.
_TAILS: Final = ("100", "1000", "10000", "all")
#: Bytes read ahead of the reader, per stream.
_BUFFER: Final = 64 * 1024
#: A terminal's are read line by line, however long one is.
_TERMINAL_BUFFER: Final = 2 * 1024 * 1024
#: The Engine's way of following may get stuck, so it is looked by itself this often; and after it broke.
_LOOK_ANYWAY_S: Final = 30.0
_RING_AGAIN_S: Final = 1.0

#: How much is said to wait in the midst of what is being read: enough for nobody to wait for more.
_MUCH: Final = 1024 * 1024

#: What the Engine's files have of a record beside its text.
_RECORD_BYTES: Final = 70

_ROTATED: Final = "it was rotated out of the Engine's log files before it could be shipped"
_BROKEN: Final = "the Engine can't read its log file on (its disk was full, or the machine went down)"


class EngineLog:
    """One container's log. `container`: as in a URL's path. `spool`: in which files the Engine keeps it."""

    def __init__(self, transport: Transport, container: str, terminal: bool, limits: Limits, *, spool: Spool) -> None:
        self.spool = spool
        self._transport = transport
        self._container = container
        self._terminal = terminal
        self._limits = limits

    @contextlib.asynccontextmanager
    async def reader(self, position: str) -> AsyncIterator["EngineLogReader"]:
        """Open it behind a position. Raises EngineErrors only from the reader."""
        reader = EngineLogReader(self, position)
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            bell = group.create_task(self._ring(reader))
            try:
                yield reader
            except Exception as error:  # noqa: BLE001  # the group would wrap it
                failure = error
            finally:
                bell.cancel()
                await reader.close()
        if failure is not None:
            raise failure

    async def _ring(self, reader: "EngineLogReader") -> None:
        """Have the reader look whenever the container writes something, and now and then in any case."""
        while True:
            reader.rung = True
            with contextlib.suppress(EngineError, TimeoutError):
                async with asyncio.timeout(_LOOK_ANYWAY_S), self._open({"tail": "0", "follow": "1"}) as pieces:
                    # What was written before it was open may not have rung.
                    reader.rung = True
                    async for _ in pieces:
                        reader.rung = True
            await asyncio.sleep(_RING_AGAIN_S)

    @contextlib.asynccontextmanager
    async def _open(self, params: Mapping[str, str]) -> AsyncIterator[AsyncGenerator[tuple[int, bytes]]]:
        async with self._transport.stream(
            "logs",
            "GET",
            f"containers/{self._container}/logs",
            params={"stdout": "1", "stderr": "1", "timestamps": "1", **params},
            open_s=self._limits.open_s,
            buffer=_TERMINAL_BUFFER if self._terminal else _BUFFER,
        ) as stream:
            idle_s = None if "follow" in params else self._limits.log_idle_s
            async with contextlib.aclosing(read_pieces(stream, terminal=self._terminal, idle_s=idle_s)) as pieces:
                yield pieces

    async def records(self, tail: str) -> AsyncGenerator[Record | None]:
        """Yield the last records, as many as `tail` says, the oldest first; None where the Engine can't read on."""
        async with self._open({"tail": tail}) as pieces:
            async for stream, piece in pieces:
                stamp, _, text = piece.decode("utf-8", errors="replace").partition(" ")
                if stream == SYSTEM:
                    yield None
                    return
                yield Record(parse_ns(stamp), "stderr" if stream == STDERR else "stdout", text)


class EngineLogReader:
    """Implements OutputReader."""

    def __init__(self, log: EngineLog, position: str) -> None:
        self._log = log
        self._lost: Lost | None = None
        self._mark: Mark | None = None
        #: What is being read, from behind the mark on.
        self._records: AsyncGenerator[Record] | None = None
        self._tail = _TAILS[-1]
        #: There may be something new.
        self.rung = True
        try:
            self._mark = Mark.parse(position) if position else None
        except ValueError:
            self._lost = Lost(0, f"it isn't known how far this output was shipped: {position!r}")

    async def close(self) -> None:
        """Close what is open."""
        if self._records is not None:
            await self._records.aclose()
            self._records = None

    def waiting(self) -> int:
        """See OutputReader: of what isn't being read yet only whether there may be something is known."""
        return _MUCH if self._records is not None else int(self.rung)

    def missing(self) -> Lost | None:
        """See OutputReader."""
        lost, self._lost = self._lost, None
        return lost

    async def read(self, size: int) -> Sequence[Record | Lost]:
        """See OutputReader."""
        if self._records is None:
            self.rung = False
            self._records = self._from_mark()
        items: list[Record | Lost] = []
        taken = 0
        while taken < size:
            try:
                record = await anext(self._records)
            except StopAsyncIteration:
                self._records = None
                break
            if self._lost is not None:
                items.append(self._lost)
                self._lost = None
            items.append(record)
            self._mark = record.mark
            taken += len(record.text)
        return items

    async def _from_mark(self) -> AsyncGenerator[Record]:
        """Yield the records behind the mark. What is missing there is noted before the one behind it."""
        mark = self._mark
        if mark is None or mark.check is None:
            async for younger in self._younger(mark.at_ns if mark else -1):
                yield younger
            return
        for tail in _TAILS:
            found = False
            async with contextlib.aclosing(self._log.records(tail)) as records:
                async for record in records:
                    if record is None:
                        break
                    if found:
                        yield record
                    found = found or _same(record.mark, mark)
                else:
                    if found:
                        return
                    continue
            self._torn(mark.at_ns)
            return
        self._lost = Lost(mark.at_ns, _ROTATED)
        async for younger in self._younger(mark.at_ns):
            yield younger

    async def _younger(self, at_ns: int) -> AsyncGenerator[Record]:
        tail, self._tail = self._tail, _TAILS[-1]
        first = await self._first() if self._mark is None else None
        async with contextlib.aclosing(self._log.records(tail)) as records:
            async for record in records:
                if record is None:
                    self._torn(at_ns)
                    return
                if first is not None and record.mark != first:
                    self._lost = Lost(0, _ROTATED, sure=False)
                first = None
                if record.at_ns > at_ns:
                    yield record

    async def _first(self) -> Mark | None:
        """Return the mark of the first record; one of no record if so much is kept that some may have been before it.

        For the beginning of an output, as there is no mark yet to miss what is gone by. None: there is no record.
        """
        first: Mark | None = None
        size = 0
        async with contextlib.aclosing(self._log.records(_TAILS[-1])) as records:
            async for record in records:
                if record is None:
                    break
                first = first or record.mark
                size += len(record.text) + _RECORD_BYTES
                if size >= self._log.spool.full_bytes:
                    return Mark(0)
        return first

    def _torn(self, at_ns: int) -> None:
        """The Engine can't read on here: what is near the end may still be had."""
        at_ns = max(at_ns, self._mark.at_ns if self._mark else 0)
        self._lost = Lost(at_ns, _BROKEN)
        self._mark = Mark(at_ns)
        self._tail = _TAILS[0]


def _same(one: Mark, other: Mark) -> bool:
    """Whether two marks are of the same record; where it is in its file isn't known here."""
    return (one.at_ns, one.check) == (other.at_ns, other.check)
