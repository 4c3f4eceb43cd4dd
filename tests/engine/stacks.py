"""What a Docker Engine that doesn't answer is doing: dockerd and containerd write their stacks when sent SIGUSR1."""

import re
import time
from collections import Counter
from pathlib import Path
from signal import SIGUSR1
from typing import Final

import psutil

from tests.e2e.harness import eventually

__all__ = ["engine_stacks", "summary"]

_PID: Final = Path("/var/run/docker.pid")
#: Where each writes them; a dump of an earlier time is there, too.
_DUMPS: Final = {"dockerd": "/var/run/docker/goroutine-stacks-*.log", "containerd": "/tmp/containerd.*.stacks.log"}
_DUMP_LIMIT_S: Final = 10
_GOROUTINE: Final = re.compile(r"goroutine \d+ \[([^\],]+)")
#: A frame of Docker's or containerd's own: package and function.
_FRAME: Final = re.compile(r"^github\.com/(?:docker/docker|containerd/containerd)/([^/\s].*)\(", re.M)


def engine_stacks() -> str:
    """Return what the goroutines of this machine's Engine do and how many do so, the most frequent first."""
    try:
        dockerd = psutil.Process(int(_PID.read_text()))
        # Of a dockerd that was killed the file stays, and the number may be another process's: the signal would end it.
        family = [dockerd, *dockerd.children()] if dockerd.name() == "dockerd" else []
        return "\n".join(_stacks_of(daemon) for daemon in family if daemon.name() in _DUMPS) or "no dockerd is running"
    except (OSError, ValueError, psutil.Error) as error:
        return f"what the Engine does can't be seen: {error}"


def _stacks_of(daemon: psutil.Process) -> str:
    # The kernel stamps files by a clock that is a few ms behind.
    name, asked_at = daemon.name(), time.time() - 0.1
    title = f"{name} ({daemon.pid}, {daemon.status()}):\n"

    def dump() -> str:
        files = (path for path in Path("/").glob(_DUMPS[name].lstrip("/")) if path.stat().st_mtime >= asked_at)
        return next((path.read_text() for path in files), "")

    daemon.send_signal(SIGUSR1)
    try:
        return title + summary(eventually(dump, within_s=_DUMP_LIMIT_S))
    except AssertionError:
        return f"{title}doesn't even write its stacks"


def summary(stacks: str) -> str:
    """Count the goroutines that are in the same place for the same reason."""
    places: Counter[str] = Counter()
    for stack in stacks.split("\n\n"):
        state = _GOROUTINE.match(stack)
        if state is not None and (frames := _FRAME.findall(stack)):
            places[f"{state[1]} in {' < '.join(frames[:3])}"] += 1
    return "\n".join(f"{count:5} x {place}" for place, count in places.most_common(20))
