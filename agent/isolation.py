"""Stopping tasks that may run at most once while the control plane can't be reached: when, and since when it can't.

What always holds:
 - the silence counts from when the last acknowledged heartbeat (or accepted hello) was *sent*: the control plane has
   heard this host no earlier than that, so its own count never runs ahead of this one;
 - time stands still in neither a suspended machine nor a restarted agent: it is the machine's since its boot, and the
   last contact is kept in a file; after a reboot, or without the file, the last contact is unknown;
 - at most once comes first: with an unknown last contact such a task is killed at once, and not started again. The
   first contact of a session comes before its assignments, so no task that is assigned now is concerned.
"""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from agent.task.messages import Isolated
from agent.task.runner import TaskRunner
from homeport.ids import TaskId
from homeport.spec import TaskSpec
from homeport.status import DesiredStatus

__all__ = ["Contact", "Due", "IsolationWatch", "due", "since_boot_s", "this_boot"]

_log = structlog.get_logger(__name__)

#: Heartbeats sent within the shortest silence that stops a task, so that one lost connection stops none.
_HEARTBEATS_PER_SILENCE: Final = 3
#: The longest time between two looks for tasks to stop, in seconds.
_LOOK_S: Final = 5.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """What isolation asks of a task now, and when to look again (in the time of `Contact.elapsed`; None: never)."""

    stage: Literal["", "stop", "kill"] = ""
    next_at: float | None = None


def due(spec: TaskSpec, contact_at: float | None, now: float) -> Due:
    """Decide for one task. `contact_at`: the last contact; None: unknown, which counts as too long ago."""
    if spec.isolation_stop_s is None:
        return Due()
    if contact_at is None:
        return Due(stage="kill")
    kill_at = None if spec.isolation_kill_s is None else contact_at + spec.isolation_kill_s
    if kill_at is not None and now >= kill_at:
        return Due(stage="kill")
    stop_at = contact_at + spec.isolation_stop_s
    if now >= stop_at:
        return Due(stage="stop", next_at=kill_at)
    return Due(next_at=stop_at if kill_at is None else min(stop_at, kill_at))


def since_boot_s() -> float:
    """Return the seconds since this machine's boot, those included in which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def this_boot() -> str:
    """Return what tells this boot of the machine from others; "" if it can't be told."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class Contact:
    """When the control plane was last in touch. Kept in a file of one line, if given: `BOOT SECONDS`.

    The file is written in place and not synced: it must survive the agent, and is of no use after the machine's end.
    """

    def __init__(
        self, path: Path | None = None, *, elapsed: Callable[[], float] = since_boot_s, boot: str | None = None
    ) -> None:
        """`boot`: this boot's name; None: ask the machine in `load`."""
        self._path = path
        self._boot = boot
        self._warned = False
        #: Returns the time that contacts are counted in, in seconds.
        self.elapsed = elapsed
        #: The time of the last contact; None if unknown.
        self.at: float | None = None

    def load(self) -> None:
        """Take up what an earlier agent has kept in this boot of the machine."""
        if self._boot is None:
            self._boot = this_boot()
        if self._path is None or not self._boot:
            return
        try:
            boot, _, at = self._path.read_text().strip().partition(" ")
            if boot == self._boot:
                self.at = float(at)
        except (OSError, ValueError):
            return

    def note(self, sent_at: float) -> None:
        """Note that what was sent at this time has been answered."""
        self.at = sent_at if self.at is None else max(self.at, sent_at)
        if self._path is not None and self._boot:
            try:
                self._keep(f"{self._boot} {self.at:020.3f}\n".encode())
            except OSError as error:
                if not self._warned:
                    _log.warning("the time of the last contact can't be kept", path=str(self._path), error=str(error))
                self._warned = True

    def _keep(self, line: bytes) -> None:
        # One write over a line of the same length: whoever is killed meanwhile leaves the old one or the new one.
        file = os.open(str(self._path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(file, line, 0)
        finally:
            os.close(file)

    def silent_s(self) -> float | None:
        """Return for how long the control plane has been silent; None if that isn't known."""
        return None if self.at is None else max(0.0, self.elapsed() - self.at)


class IsolationWatch:
    """Tells tasks of which at most one may run to go, once the control plane has been silent for too long."""

    def __init__(self, contact: Contact, runners: Mapping[TaskId, TaskRunner]) -> None:
        """`runners`: those of all tasks of this host, as they come and go."""
        self.contact = contact
        self._runners = runners
        #: How far tasks were told to go; afresh with each contact.
        self._told: dict[TaskId, str] = {}
        self._due = asyncio.Event()

    @property
    def heartbeat_within_s(self) -> float:
        """The longest pause between heartbeats that the tasks allow, in seconds; infinite if any will do."""
        silences = (
            runner.state.spec.isolation_stop_s
            for runner in self._runners.values()
            if runner.state.spec.isolation_stop_s is not None and not runner.state.over
        )
        return min(silences, default=math.inf) / _HEARTBEATS_PER_SILENCE

    def contact_made(self, stamp: float) -> None:
        """Note that what was sent at this time has been answered."""
        self.contact.note(stamp)
        self._told.clear()

    def wake(self) -> None:
        """Have a look at all tasks: there is a new one, or time has been moved."""
        self._due.set()

    async def run(self) -> None:
        """Watch until cancelled.

        While there are such tasks it looks again every few seconds: a suspended machine's timers stand still.
        """
        while True:
            self._due.clear()
            looks = [self.look(runner) for runner in self._runners.values()]
            soon = [next_at - self.contact.elapsed() for next_at in looks if next_at is not None]
            wait_s = max(0.0, min([_LOOK_S, *soon])) if soon else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._due.wait()

    def look(self, runner: TaskRunner) -> float | None:
        """Tell one task, if it is time; return when to look at it again, None if nothing will come of that."""
        state = runner.state
        if state.over or state.spec.isolation_stop_s is None:
            return None
        if state.desired is DesiredStatus.PENDING:
            # Nothing of it runs; but it may have been told to a moment ago.
            return self.contact.elapsed() + _LOOK_S
        verdict = due(state.spec, self.contact.at, self.contact.elapsed())
        if verdict.stage and self._told.get(state.task_id) != verdict.stage:
            self._told[state.task_id] = verdict.stage
            runner.tell(Isolated(self.contact.silent_s(), verdict.stage == "kill"))
        return verdict.next_at
