"""One reader's logs: what there is, by time; then, if followed, what comes, from tasks that come and go."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from controlplane.api.logview.following import Following
from controlplane.api.logview.history import ends_with, merged
from controlplane.api.logview.host_feed import HostFeed, ReadLogs
from controlplane.api.logview.model import Feed, FeedBroken, Line, Mark, Note, Place, Sieve, Span, Standing, Wanted
from controlplane.api.logview.opening import open_feed
from controlplane.api.logview.subject import Subject
from controlplane.context import Context
from controlplane.state.records import TaskRecord
from homeport.status import TaskStatus

__all__ = ["Item", "Put", "Reading"]

Item = Line | Note | Standing
#: Takes what is read; waits while the reader is slow.
Put = Callable[[Sequence[Item]], Awaitable[None]]
#: (task id, container).
Name = tuple[str, str]

#: Logs opened at a time, and lines by which a float's next smaller time is told apart.
_OPENING: Final = 16
_INSTANT_S: Final = 1e-6


class Reading:
    """Reads once: `run`."""

    def __init__(self, context: Context, read_logs: ReadLogs, subject: Subject, wanted: Wanted) -> None:
        self._context = context
        self._read_logs = read_logs
        self._subject = subject
        self._wanted = wanted
        self._names: dict[Feed, Name] = {}
        self._problems: dict[Name, FeedBroken] = {}
        self._said: set[str] = set()
        resume = wanted.resume
        self._marks = {} if resume is None else {(mark.task, mark.container): mark for mark in resume.marks}
        self._began = context.clock.now() if resume is None else resume.began

    async def run(self, put: Put) -> None:
        """Read until all is read; if following, until no more can come, or cancelled. Raises FeedBroken if nothing can
        be read, or the only log breaks off."""
        put = _if_any(put)
        passed: set[str] = {task.id for task in self._subject.present()}
        tasks = [task for task in await self._subject.tasks(self._wanted) if not self._passed(task)]
        passed.update(task.id for task in tasks)
        await self._open(tasks)
        feeds = list(self._names)
        if not feeds and (self._subject.closed or not self._wanted.follow):
            if not self._problems and self._wanted.span != Span():
                return  # nothing in that time
            raise self._nothing()
        if len(feeds) == 1 and self._subject.closed and isinstance(feeds[0], HostFeed) and self._is_simple():
            await self._straight(feeds[0], put)
            return
        await self._history(feeds, put)
        if self._wanted.follow:
            following = Following(self._context, self._subject, self._opened, self._wanted, self._said)
            await following.run(self._names, passed, put)
        elif problem := self._only_problem():
            raise problem

    # ------------------------------------------------------------ opening

    def _passed(self, task: TaskRecord) -> bool:
        """Tell whether a reader that comes back isn't to see a task: it was over before it came."""
        marked = any((task.id, container.name) in self._marks for container in task.spec.containers)
        over = task.status is TaskStatus.STOPPED and task.created_at < self._began
        return self._wanted.resume is not None and over and not marked

    async def _open(self, tasks: Sequence[TaskRecord]) -> None:
        room = asyncio.Semaphore(_OPENING)
        opened: dict[Name, Feed] = {}

        async def one(task: TaskRecord, container: str) -> None:
            async with room:
                try:
                    opened[task.id, container] = await self._opened(task, container)
                except FeedBroken as error:
                    self._problems[task.id, container] = error

        names = [
            (task, container.name)
            for task in tasks
            for container in task.spec.containers
            if self._wanted.container in (None, container.name)
        ]
        async with asyncio.TaskGroup() as group:
            for task, container in names:
                group.create_task(one(task, container))
        self._names = {opened[name]: name for task, container in names if (name := (task.id, container)) in opened}

    async def _opened(self, task: TaskRecord, container: str) -> Feed:
        mark = self._marks.get((task.id, container))
        if mark is not None and mark.at and not mark.number and task.id in self._context.state.tasks:
            # It was read from the host, and only there is what is behind that line.
            return HostFeed(self._context, self._read_logs, task, container)
        return await open_feed(self._context, self._read_logs, task, container, follow=self._wanted.follow)

    def _nothing(self) -> FeedBroken:
        if not self._problems:
            return FeedBroken("no task of it has a log yet")
        if len(self._problems) == 1:
            return next(iter(self._problems.values()))
        texts = [f"{container}/{task[:8]}: {error}" for (task, container), error in self._problems.items()]
        return FeedBroken("; ".join(texts[-3:]))

    def _is_simple(self) -> bool:
        wanted = self._wanted
        lines = wanted.tail is None or wanted.sieve == Sieve()
        return lines and wanted.span.until is None and wanted.resume is None

    # ------------------------------------------------------------ what there is

    async def _straight(self, feed: HostFeed, put: Put) -> None:
        """Read the only log in one go, as the Engine has it."""
        wanted, since = self._wanted, self._wanted.span.since
        if wanted.follow:
            pages = feed.live(tail=wanted.tail, since=since)
        else:
            pages = feed.forwards(wanted.span, tail=wanted.tail)
        first = True
        async with aclosing(pages):
            async for lines in pages:
                if first:
                    # Not before: a log that can't be read at all has no place to go on from.
                    await self._put_standing(put, {feed: Span(after=_before((lines[0].at, 0)))})
                    first = False
                await put(wanted.sieve.sift(lines))

    async def _history(self, feeds: Sequence[Feed], put: Put) -> None:
        spans = await self._spans(feeds)
        await self._put_standing(put, spans)
        async with aclosing(merged(spans, self._broke)) as pages:
            async for lines in pages:
                await put(self._wanted.sieve.sift(lines))
        if self._wanted.resume is None:
            await put(self._notes(feeds))

    async def _spans(self, feeds: Sequence[Feed]) -> Mapping[Feed, Span]:
        wanted = self._wanted
        if wanted.resume is not None:
            return {feed: self._resumed(feed) for feed in feeds}
        if wanted.tail is None:
            return dict.fromkeys(feeds, wanted.span)
        begins = await ends_with(feeds, wanted.span, wanted.sieve, max(wanted.tail, 1), self._broke)
        return {feed: wanted.span._replace(after=_before(place)) for feed, place in begins.items() if wanted.tail}

    def _resumed(self, feed: Feed) -> Span:
        mark = self._marks.get(self._names[feed])
        if mark is None:
            return self._wanted.span
        place = (mark.at, mark.number)
        feed.skip(place)
        return Span(after=place)

    async def _put_standing(self, put: Put, spans: Mapping[Feed, Span]) -> None:
        """Tell a reader that can use it what to come back with, if it is cut off now."""
        if not self._wanted.resumable:
            return
        places = {feed: spans[feed].after if feed in spans else feed.place for feed in self._names}
        marks = dict(self._marks)
        for feed, place in places.items():
            if place is not None:
                marks[self._names[feed]] = Mark(*self._names[feed], *place)
        await put([Standing(self._began, tuple(marks.values()))])

    def _broke(self, feed: Feed, error: FeedBroken) -> None:
        self._problems[self._names[feed]] = error

    def _only_problem(self) -> FeedBroken | None:
        """Return why the log broke that is the only one."""
        names = list(self._names.values())
        return self._problems.get(names[0]) if len(names) == 1 else None

    def _notes(self, feeds: Sequence[Feed]) -> list[Note]:
        """Say what can't be read, and what is still to come. The only log's problem is raised instead."""
        only = self._only_problem()
        texts = [
            f"{container}/{task[:8]}: {error}"
            for (task, container), error in self._problems.items()
            if error is not only and not error.harmless
        ]
        rests = [feed.rest() for feed in feeds]
        fresh = [text for text in dict.fromkeys([*texts, *rests]) if text and text not in self._said]
        self._said.update(fresh)
        return [Note(text) for text in fresh]


def _if_any(put: Put) -> Put:
    """Keep back what is empty: the first that is put decides whether a failure is an answer of its own."""

    async def some(items: Sequence[Item]) -> None:
        if items:
            await put(items)

    return some


def _before(place: Place) -> Place:
    at, number = place
    return (at, number - 1) if number else (at - _INSTANT_S, 0)
