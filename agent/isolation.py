"""Stopping tasks that may run at most once while the control plane can't be reached: when, and since when it can't.

What always holds:
 - the silence counts from when the last acknowledged heartbeat (or accepted hello) was *sent*: the control plane has
   heard this host no earlier than that, so its own count never runs ahead of this one;
 - time stands still in neither a suspended machine nor a restarted agent: it is the machine's since its boot, and the
   last contact is kept in a file; after a reboot, or without the file, the last contact is unknown;
 - at most once comes first: with an unknown last contact such a task is killed at once, and not started again. The
   first contact of a session comes before its assignments, so no task that is assigned now is concerned.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from homeport.spec import TaskSpec

__all__ = ["HEARTBEATS_PER_SILENCE", "Contact", "Due", "due", "since_boot_s", "this_boot"]

_log = structlog.get_logger(__name__)

#: Heartbeats sent within the shortest silence that stops a task, so that one lost connection stops none.
HEARTBEATS_PER_SILENCE: Final = 3
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
