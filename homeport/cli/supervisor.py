"""Keeping a child process alive: started, watched, started again when it dies, stopped with us.

What always holds: a child never outlives the supervisor (the kernel ends it even if we are killed), never gets the
terminal's Ctrl-C (we stop it ourselves, in order), and never dies without a line that says so.
"""

import asyncio
import ctypes
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from homeport.clock import Clock
from homeport.daemon import EXIT_CONFIG

__all__ = ["Child", "ChildFailed", "backoff_s", "describe_exit"]

#: A child that is told to stop gets this long before it is killed; the daemons need about 5 s at most.
STOP_TIMEOUT_S: Final = 15.0
#: A child that ran this long was well: the next restart comes at once again.
_WELL_AFTER_S: Final = 60.0
_FIRST_BACKOFF_S: Final = 0.2
_LONGEST_BACKOFF_S: Final = 30.0
#: A log that is larger is put aside when its child starts.
_LOG_BYTES: Final = 10 * 1024 * 1024
#: How much of a child's log is read to find its last words.
_LAST_WORDS_BYTES: Final = 16_384

_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


class ChildFailed(Exception):
    """A child ended and starting it again would not help. `last_words`: what it said last, "" if that isn't known."""

    def __init__(self, name: str, exit_code: int, last_words: str) -> None:
        super().__init__(f"{name} {describe_exit(exit_code)}")
        self.name = name
        self.exit_code = exit_code
        self.last_words = last_words


class _Life(msgspec.Struct, frozen=True):
    """One run of a child: its status, and how long it lasted."""

    exit_code: int
    lasted_s: float
    last_words: str


def describe_exit(exit_code: int) -> str:
    """Say how a process ended, from the number `subprocess` gives: `exited with status 1`, `was killed by SIGKILL`."""
    if exit_code >= 0:
        return f"exited with status {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


def backoff_s(deaths_in_a_row: int) -> float:
    """Return how long to wait before the next start: 0.2 s, doubled with each death, 30 s at most."""
    doublings = min(max(deaths_in_a_row - 1, 0), 16)
    return min(_FIRST_BACKOFF_S * float(1 << doublings), _LONGEST_BACKOFF_S)


class Child:
    """A supervised process.

    `command` is asked before each start. Its output goes to `log`, or to our stderr if that is None. `pid` is None
    while it doesn't run. Until `established` is set, a death is final: what can't start once is not tried again.
    `is_over` is asked when it ends with status 0: if it has done what it was for, it is not started again.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        *,
        environment: Mapping[str, str],
        log: Path | None,
        say: Callable[[str], None],
        clock: Clock,
        is_over: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.name = name
        self.established = False
        self.pid: int | None = None
        self._command = command
        self._environment = environment
        self._log = log
        self._say = say
        self._clock = clock
        self._is_over = is_over

    async def run(self) -> None:
        """Keep the child running until cancelled, then stop it with SIGTERM. Returns only once it is over.

        Raises ChildFailed if it dies before it is established, or ends because its configuration can't be used.
        """
        deaths = 0
        while True:
            life = await self._live()
            if not self.established or life.exit_code == EXIT_CONFIG:
                raise ChildFailed(self.name, life.exit_code, life.last_words)
            if life.exit_code == 0 and self._is_over is not None and await self._is_over():
                return
            deaths = 1 if life.lasted_s >= _WELL_AFTER_S else deaths + 1
            delay_s = backoff_s(deaths)
            self._say(f"{self.name} {describe_exit(life.exit_code)}; starting it again in {delay_s:g} s")
            await asyncio.sleep(delay_s)

    async def _live(self) -> _Life:
        """Start the child and wait for its end. On cancel: stop it first."""
        began = self._clock.monotonic()
        if self._log is None:
            process = await self._start(None)
            offset = 0
        else:
            self._log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _rotate(self._log)
            with self._log.open("ab") as file:
                offset = file.tell()
                process = await self._start(file.fileno())
        self.pid = process.pid
        try:
            exit_code = await process.wait()
        except asyncio.CancelledError:
            await _stop(process)
            raise
        finally:
            self.pid = None
        return _Life(exit_code, self._clock.monotonic() - began, self._last_words(offset))

    async def _start(self, output: int | None) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command(),
            env=dict(self._environment),
            stdin=subprocess.DEVNULL,
            # Standard output is kept for the one line that says "ready".
            stdout=subprocess.DEVNULL,
            stderr=output,
            process_group=0,
            preexec_fn=_die_with_parent,
        )

    def _last_words(self, offset: int) -> str:
        if self._log is None:
            return ""
        with self._log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(offset, size - _LAST_WORDS_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _rotate(log: Path) -> None:
    """Put a log that has grown large aside, in place of the one put aside before."""
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_name(log.name + ".1"))


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Stop a process: SIGTERM, and SIGKILL after STOP_TIMEOUT_S. Returns once it is gone."""
    try:
        process.terminate()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except ProcessLookupError:
        pass
    except TimeoutError:
        process.kill()
    await process.wait()


def _die_with_parent() -> None:
    """Ask the kernel to send SIGTERM when our parent dies. Runs between fork and exec: system calls only."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
