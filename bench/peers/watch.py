"""Which containers run in an Engine, as its own events tell: with their times, and without asking over and over."""

import os
import selectors
import subprocess
import time
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Running"]

_CHUNK: Final = 65536


class Running:
    """The containers that run in the Engine at `docker_host`, from when this is made. Close it.

    All of them: an Engine that is watched belongs to one side. Nothing is asked while something is measured, and the
    times are the Engine's own.
    """

    def __init__(self, docker_host: str) -> None:
        self.ids: set[str] = set()
        since = f"{time.time() - 1:.6f}"  # so that no container starts before the client is connected
        self._client = subprocess.Popen(
            ["docker", "-H", docker_host, "events", "--since", since, "--format", "{{.TimeNano}} {{.Action}} {{.ID}}",
             "--filter", "type=container", "--filter", "event=start", "--filter", "event=die"],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._client.stdout is not None
        self._stream = self._client.stdout
        self._rest = b""
        self._lines: deque[bytes] = deque()

    def until(self, done: Callable[[set[str]], bool], *, within_s: float = 300.0) -> float:
        """Return when `done` of the running containers became true, in seconds since the epoch; now if it is already.

        AssertionError if that isn't so within `within_s`.
        """
        deadline = time.monotonic() + within_s
        moment = time.time()
        while not done(self.ids):
            if not self._lines:
                self._read(deadline - time.monotonic())
                assert self._lines, f"not within {within_s} s: {len(self.ids)} containers run"
            moment = self._apply(self._lines.popleft())
        return moment

    def now(self) -> set[str]:
        """Return the containers that run now, as far as events have come."""
        self._read(0)
        while self._lines:
            self._apply(self._lines.popleft())
        return set(self.ids)

    def _apply(self, line: bytes) -> float:
        nanoseconds, action, container = line.decode().split()
        if action == "start":
            self.ids.add(container)
        else:
            self.ids.discard(container)
        return int(nanoseconds) / 1e9

    def _read(self, within_s: float) -> None:
        """Add whole lines to those not yet applied, as soon as there are any."""
        deadline = time.monotonic() + within_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._stream, selectors.EVENT_READ)
            while not self._lines and selector.select(max(deadline - time.monotonic(), 0)):
                chunk = os.read(self._stream.fileno(), _CHUNK)
                assert chunk, "the Engine's events have ended"
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                self._lines.extend(lines)

    def close(self) -> None:
        self._client.terminate()
        self._client.wait(10)
        self._stream.close()
