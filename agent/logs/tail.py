"""A container's log on its way to a reader: lines are read ahead a little, and sent in chunks."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Final

from agent.engine.api import Engine, LogLine
from agent.engine.errors import EngineError
from agent.task.model import ContainerState, TaskState
from homeport.protocol import LogChunk, LogsRequest
from homeport.status import ContainerStatus

__all__ = ["LogTail"]

#: Lines read ahead of the reader, and lines in one chunk.
_AHEAD: Final = 1000
_CHUNK: Final = 200
#: How often, and how far apart, it is looked whether a container whose log ended has stopped or is being restarted.
_LOOKS: Final = 10
_LOOK_EVERY_S: Final = 0.1


class LogTail:
    """Reads the log that `request` asks for. Following goes on over restarts, until the container stays stopped."""

    def __init__(
        self, engine: Engine, group: asyncio.TaskGroup, request: LogsRequest, look_up: Callable[[], TaskState | None]
    ) -> None:
        """`group` is where the reading coroutine lives, until `chunks` is closed; `look_up` gives the task's state."""
        self._engine = engine
        self._group = group
        self._request = request
        self._look_up = look_up
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
        state = self._look_up()
        if state is None:
            return f"this host has no task {self._request.task_id} (any more)"
        names = [c.name for c in state.containers]
        if self._request.container not in names:
            return f"the task has no container {self._request.container}; it has {', '.join(names)}"
        if state.container(self._request.container).runtime_id is None:
            return f"container {self._request.container} was never created, so it has no log"
        return ""

    async def _read(self) -> None:
        since, tail = self._request.since, self._request.tail
        try:
            while (container := self._container()) is not None and container.runtime_id is not None:
                lines = self._engine.logs(container.runtime_id, follow=self._request.follow, tail=tail, since=since)
                async with contextlib.aclosing(lines):
                    async for line in lines:
                        since, tail = line.at, None
                        await self._lines.put(line)
                if not self._request.follow or await self._stopped():
                    break
        except EngineError as error:
            await self._lines.put(str(error) or "the Docker Engine failed")
        else:
            await self._lines.put(None)

    def _container(self) -> ContainerState | None:
        state = self._look_up()
        return state.container(self._request.container) if state is not None else None

    async def _stopped(self) -> bool:
        """Tell whether a container whose log ended has stopped, giving its runner a moment to see it."""
        for _ in range(_LOOKS):
            container = self._container()
            if container is None or container.known is ContainerStatus.STOPPED:
                return True
            await asyncio.sleep(_LOOK_EVERY_S)
        return False

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
