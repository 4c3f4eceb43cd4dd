"""A container's log as lines with times.

The Engine sends the two streams in frames (8 bytes: stream, three zeros, length), a terminal's log as it is. It splits
lines over 16 KiB into several frames, each with a time of its own and only the last with the line's end; they are put
together again here.
"""

import asyncio
import contextlib
import struct
from collections.abc import AsyncGenerator, Iterator
from typing import Final, Literal

import aiohttp

from agent.engine.api import LogLine
from agent.engine.errors import EngineTimeout, EngineUnavailable
from agent.engine.facts import parse_ns
from agent.engine.limits import Limits
from agent.engine.transport import Transport

__all__ = ["STDERR", "STDOUT", "SYSTEM", "LineAssembler", "read_logs", "read_pieces"]

_HEADER: Final = struct.Struct(">BxxxL")
#: How the Engine numbers its streams. What it says of itself, of a log that it can't read on, is in the third.
STDOUT: Final = 1
STDERR: Final = 2
SYSTEM: Final = 3
#: A line is given in pieces of about this many characters when it is longer.
_LINE_MAX: Final = 256 * 1024


class LineAssembler:
    """Puts one stream's pieces together to lines. Each piece begins with its time, up to the first blank."""

    def __init__(self, stream: Literal["stdout", "stderr"]) -> None:
        self._stream = stream
        self._at_ns: int | None = None
        self._parts: list[str] = []
        self._length = 0

    def feed(self, piece: bytes) -> Iterator[LogLine]:
        """Take one piece; yield the lines it completes."""
        stamp, _, text = piece.decode("utf-8", errors="replace").partition(" ")
        if self._at_ns is None:
            self._at_ns = parse_ns(stamp)
        self._parts.append(text.removesuffix("\n"))
        self._length += len(text)
        if text.endswith("\n") or self._length >= _LINE_MAX:
            yield from self.flush()

    def flush(self) -> Iterator[LogLine]:
        """Yield what has no end yet."""
        if self._at_ns is not None:
            yield LogLine(at_ns=self._at_ns, stream=self._stream, text="".join(self._parts).removesuffix("\r"))
        self._at_ns, self._parts, self._length = None, [], 0


async def read_logs(
    transport: Transport,
    container_id: str,
    *,
    terminal: bool,
    follow: bool,
    tail: int | None,
    since: float | None,
    limits: Limits,
) -> AsyncGenerator[LogLine]:
    """Yield a container's log lines, oldest first; with `follow` until it stops. `since` is exclusive.

    Raises EngineErrors: NotFound, Rejected (the log driver can't be read), EngineUnavailable when the stream breaks.
    Close the iterator to close the stream.
    """
    params = {"stdout": "1", "stderr": "1", "timestamps": "1", "tail": "all" if tail is None else str(tail)}
    if follow:
        params["follow"] = "1"
    if since is not None:
        params["since"] = f"{since:.9f}"
    idle_s = None if follow else limits.log_idle_s
    async with transport.stream(
        "logs", "GET", f"containers/{container_id}/logs", params=params, open_s=limits.open_s
    ) as reader:
        out, err = LineAssembler("stdout"), LineAssembler("stderr")
        async with contextlib.aclosing(read_pieces(reader, terminal=terminal, idle_s=idle_s)) as pieces:
            async for stream, piece in pieces:
                for line in (err if stream == STDERR else out).feed(piece):
                    if since is None or line.at > since:
                        yield line
        for line in (*out.flush(), *err.flush()):
            if since is None or line.at > since:
                yield line


async def read_pieces(
    reader: aiohttp.StreamReader, *, terminal: bool, idle_s: float | None
) -> AsyncGenerator[tuple[int, bytes]]:
    """Yield what the Engine sends, piece by piece: which stream it is of, and its time and text.

    Raises EngineTimeout when nothing comes for `idle_s`, EngineUnavailable when the stream ends within a piece.
    """
    if terminal:
        while piece := await _bounded_line(reader, idle_s):
            yield STDOUT, piece
        return
    while header := await _exactly(reader, _HEADER.size, idle_s):
        stream, length = _HEADER.unpack(header)
        yield stream, await _exactly(reader, length, idle_s)


async def _exactly(reader: aiohttp.StreamReader, size: int, idle_s: float | None) -> bytes:
    """Read `size` bytes; nothing at the end of the stream."""
    try:
        async with asyncio.timeout(idle_s):
            return await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise EngineUnavailable("a log ended in the middle of a line") from error
        return b""
    except TimeoutError as error:
        raise EngineTimeout(f"logs: no answer from the Docker Engine within {idle_s:g} s") from error


async def _bounded_line(reader: aiohttp.StreamReader, idle_s: float | None) -> bytes:
    try:
        async with asyncio.timeout(idle_s):
            return await reader.readline()
    except TimeoutError as error:
        raise EngineTimeout(f"logs: no answer from the Docker Engine within {idle_s:g} s") from error
