"""Following several logs at once: lines as they come, of tasks as they come and go."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from controlplane.api.logview.hosts import away
from controlplane.api.logview.model import Feed, FeedBroken, Line, Note, Wanted
from controlplane.api.logview.subject import Subject
from controlplane.context import Context
from controlplane.state.records import TaskRecord

__all__ = ["Following"]

#: How often it is looked which tasks have come, and which hosts have gone.
_LOOK_S: Final = 0.5
#: Batches on their way to the reader, and lines in one.
_QUEUE: Final = 16
_BATCH: Final = 1000


class Following:
    """`said`: the notes that were made already. `opened`: opens a container's log, or raises FeedBroken."""

    def __init__(
        self,
        context: Context,
        subject: Subject,
        opened: Callable[[TaskRecord, str], Awaitable[Feed]],
        wanted: Wanted,
        said: set[str],
    ) -> None:
        self._context = context
        self._subject = subject
        self._opened = opened
        self._wanted = wanted
        self._said = said
        self._queue: asyncio.Queue[Sequence[Line | Note]] = asyncio.Queue(_QUEUE)
        self._active = 0
        self._only: FeedBroken | None = None

    async def run(
        self,
        feeds: Mapping[Feed, tuple[str, str]],
        passed: set[str],
        put: Callable[[Sequence[Line | Note]], Awaitable[None]],
    ) -> None:
        """Follow `feeds`, and tasks that come and aren't in `passed`, until no more can come.

        Raises FeedBroken if the only log breaks off.
        """
        alone = len(feeds) == 1 and self._subject.closed
        async with asyncio.TaskGroup() as group:
            for feed, (task_id, container) in feeds.items():
                self._start(group, self._pump(feed, f"{container}/{task_id[:8]}", alone=alone))
            watch = group.create_task(self._watch(group, passed))
            try:
                while self._active or not self._subject.closed or not self._queue.empty():
                    await put(await self._next())
            finally:
                watch.cancel()
        if self._only is not None:
            raise self._only

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[None, None, None]) -> None:
        async def counted() -> None:
            try:
                await work
            finally:
                self._active -= 1
            await self._queue.put(())

        self._active += 1
        group.create_task(counted())

    async def _next(self) -> Sequence[Line | Note]:
        """Wait for something, then take what else is there, by time."""
        items = list(await self._queue.get())
        while not self._queue.empty() and len(items) < _BATCH:
            items += self._queue.get_nowait()
        lines = [item for item in items if isinstance(item, Line)]
        lines.sort(key=lambda line: line.at)
        return [*lines, *(item for item in items if isinstance(item, Note))]

    async def _pump(self, feed: Feed, name: str, *, alone: bool = False) -> None:
        try:
            async with aclosing(feed.live()) as pages:
                async for lines in pages:
                    if wanted := self._wanted.sieve.sift(lines):
                        await self._queue.put(wanted)
        except FeedBroken as error:
            if alone:
                self._only = error
            elif not error.harmless:
                await self._say(f"{name}: {error}")
        else:
            await self._say(feed.rest())

    async def _say(self, text: str) -> None:
        if text and text not in self._said:
            self._said.add(text)
            await self._queue.put([Note(text)])

    async def _watch(self, group: asyncio.TaskGroup, passed: set[str]) -> None:
        """Begin with tasks that come; say which hosts go; end the waiting once no task can come."""
        seen, hosts = -1, set[str]()
        while True:
            await asyncio.sleep(_LOOK_S)
            tasks = self._subject.present()
            for text in {away(self._context, task) for task in tasks if self._gone(task, hosts)}:
                await self._say(text)
            if seen != self._context.state.revision:
                seen = self._context.state.revision
                for task in tasks:
                    if task.id not in passed:
                        passed.add(task.id)
                        self._join(group, task)
                if self._subject.closed:
                    await self._queue.put(())

    def _join(self, group: asyncio.TaskGroup, task: TaskRecord) -> None:
        for container in task.spec.containers:
            if self._wanted.container in (None, container.name):
                self._start(group, self._late(task, container.name))

    async def _late(self, task: TaskRecord, container: str) -> None:
        name = f"{container}/{task.id[:8]}"
        try:
            feed = await self._opened(task, container)
        except FeedBroken as error:
            if not error.harmless:
                await self._say(f"{name}: {error}")
            return
        feed.skip((0.0, 0))
        await self._pump(feed, name)

    def _gone(self, task: TaskRecord, hosts: set[str]) -> bool:
        """Tell whether a task's host, seen connected before, isn't any more. `hosts`: those seen."""
        if task.instance_id is None:
            return False
        if self._context.state.presence.connected(task.instance_id):
            hosts.add(task.instance_id)
            return False
        if task.instance_id in hosts:
            hosts.discard(task.instance_id)
            return True
        return False
