"""A container's log on its way to a reader: lines are read ahead a little, and sent in chunks."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from agent.engine.api import Engine, LogLine
from agent.engine.errors import EngineError
from agent.task.model import TaskState
from homeport.protocol import LogChunk, LogsRequest

__all__ = ["LogTail"]

#: Lines read ahead of the reader, and lines in one chunk.
_AHEAD: Final = 1000
_CHUNK: Final = 200


class LogTail:
    """Reads the log that `request` asks for, of the task in `state` (None: no such task here)."""

    def __init__(self, engine: Engine, group: asyncio.TaskGroup, request: LogsRequest, state: TaskState | None) -> None:
        """`group` is where the reading coroutine lives, until `chunks` is closed."""
        self._engine = engine
        self._group = group
        self._request = request
        self._state = state
        #: A line; a text if it failed; None at the end.
        self._lines: asyncio.Queue[LogLine | str | None] = asyncio.Queue(_AHEAD)

    async def chunks(self) -> AsyncGenerator[LogChunk]:
        """Yield the log; the last chunk has `end` set, and `error` if there was one."""
        refusal = self._refusal()
        if refusal:
            yield LogChunk(request_id=self._request.request_id, end=True, error=refusal)
            return
        reading = self._group.create_task(self._read())
        try:
            while True:
                chunk = await self._next_chunk()
                yield chunk
                if chunk.end:
                    return
        finally:
            reading.cancel()

    def _refusal(self) -> str:
        if self._state is None:
            return f"this host has no task {self._request.task_id} (any more)"
        names = [c.name for c in self._state.containers]
        if self._request.container not in names:
            return f"the task has no container {self._request.container}; it has {', '.join(names)}"
        if self._state.container(self._request.container).runtime_id is None:
            return f"container {self._request.container} was never created, so it has no log"
        return ""

    async def _read(self) -> None:
        assert self._state is not None, "refused before"
        runtime_id = self._state.container(self._request.container).runtime_id
        assert runtime_id is not None, "refused before"
        asked = self._request
        try:
            lines = self._engine.logs(runtime_id, follow=asked.follow, tail=asked.tail, since=asked.since)
            async with contextlib.aclosing(lines):
                async for line in lines:
                    await self._lines.put(line)
        except EngineError as error:
            await self._lines.put(str(error) or "the Docker Engine failed")
        else:
            await self._lines.put(None)

    async def _next_chunk(self) -> LogChunk:
        """Wait for a line, then take what else is there."""
        lines: list[tuple[float, str, str]] = []
        item = await self._lines.get()
        while isinstance(item, LogLine):
            lines.append((item.at, item.stream, item.text))
            if self._lines.empty() or len(lines) >= _CHUNK:
                return LogChunk(request_id=self._request.request_id, lines=tuple(lines))
            item = self._lines.get_nowait()
        return LogChunk(request_id=self._request.request_id, lines=tuple(lines), end=True, error=item or "")
