"""What systemd is to a daemon: starts it, and starts it again a second after it ended."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from homeport.daemon import EXIT_CONFIG
from tests.e2e.harness import Daemon

__all__ = ["Exit", "Keeper"]

_RESTART_S: Final = 1.0
#: What a stop ends with; one that comes before the daemon has begun to listen for it ends it as well.
_CLEAN: Final = (0, -signal.SIGTERM)
_LOOK_S: Final = 0.05
_STOP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Exit:
    """An end of a daemon that nobody asked for. `at` is in seconds of the monotonic clock."""

    daemon: str
    at: float
    status: int


class Keeper:
    """Keeps one daemon running, from `start` to `close`."""

    def __init__(self, name: str, spawn: Callable[[], Daemon]) -> None:
        self.name = name
        self.exits: list[Exit] = []
        self._spawn = spawn
        self._daemon: Daemon | None = None
        self._ended: Daemon | None = None  #: the one that was ended on purpose
        self._held = threading.Event()  #: as after `systemctl stop`: not to be started again
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name=f"keeper of {name}", daemon=True)

    def start(self) -> None:
        self._daemon = self._spawn()
        self._thread.start()

    def kill(self) -> None:
        """kill -9; it stays away until `release`."""
        with self._lock:
            self._held.set()
            self._ended = self._current
            self._current.kill()

    def stop(self) -> None:
        """SIGTERM; it stays away until `release`. An end that isn't a clean one counts as an exit."""
        with self._lock:
            self._held.set()
            self._ended = self._current
            if self._current.process.poll() is not None:
                return
            self._current.process.terminate()
            try:
                status = self._current.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._current.kill()
                status = -signal.SIGKILL
            if status not in _CLEAN:
                self.exits.append(Exit(self.name, time.monotonic(), status))

    def release(self) -> None:
        """Start it again."""
        self._held.clear()

    def freeze(self) -> None:
        with self._lock:
            self._current.freeze()

    def thaw(self) -> None:
        with self._lock:
            self._current.thaw()

    def close(self) -> None:
        """Start it no more."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def _current(self) -> Daemon:
        assert self._daemon is not None
        return self._daemon

    def _keep(self) -> None:
        while not self._over.wait(_LOOK_S):
            if self._held.is_set() or self._current.process.poll() is None:
                continue
            if self._current is not self._ended:
                status = self._current.process.returncode
                self.exits.append(Exit(self.name, time.monotonic(), status))
                self._ended = self._current
                if status in (0, EXIT_CONFIG):  # our units don't start it again, either
                    return
            if not self._over.wait(_RESTART_S):
                with self._lock:
                    if not self._held.is_set():
                        self._daemon = self._spawn()
