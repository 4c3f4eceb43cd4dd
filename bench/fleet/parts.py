"""Where the control plane's time goes: a sampling profile, by part.

py-spy looks at the process from outside a hundred times a second. A sample belongs to the innermost function that one
of the parts below owns, so that a library's time counts for whoever called it.
"""

import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.e2e.harness import Installation

__all__ = ["Profile", "part_of", "profiling", "shares"]

_SAMPLES_PER_S: Final = 100

#: Part -> how its functions' files begin, below the checkout, or (`file:function`) single functions; the first that
#: fits counts. What is left of a library runs outside all of them: the event loop, and the HTTP server's own work.
_PARTS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (
        "fleet, up",
        (
            "controlplane/fleet/reports.py",
            "controlplane/fleet/session.py:_take",
            "controlplane/fleet/session.py:_read",
            "controlplane/fleet/session.py:_count_frame",
            "controlplane/fleet/session.py:note_presence",
            "controlplane/fleet/wire.py:receive",
            "controlplane/fleet/wire.py:_decode",
            "controlplane/fleet/hub.py:heard",
            "aiohttp/_websocket/reader",
        ),
    ),
    ("fleet, down", ("controlplane/fleet/",)),
    ("place", ("controlplane/scheduling/",)),
    ("journal", ("controlplane/store/",)),
    ("events", ("controlplane/events/",)),
    ("state", ("controlplane/state/",)),
    ("services", ("controlplane/services/", "controlplane/agenda.py")),
    ("request", ("controlplane/api/", "aiohttp/web", "aiohttp/http", "aiohttp/_http")),
    ("other", ("controlplane/", "homeport/")),
)
_ELSE: Final = "event loop and sockets"


class Profile:
    """Shares of time by part, once the profile has been taken; {} if this machine doesn't allow it."""

    def __init__(self) -> None:
        self.shares: dict[str, float] = {}


@contextmanager
def profiling(homeport: Installation) -> Iterator[Profile]:
    """Take a profile of the control plane for as long as the block takes."""
    profile = Profile()
    # Beside the interpreter, or wherever it is: `pip install '.[bench]'` brings it.
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        yield profile
        return
    stacks = homeport.directory / "stacks.txt"
    options = ["--pid", str(homeport.control_plane.pid), "--rate", str(_SAMPLES_PER_S), "--duration", "600"]
    recorder = homeport.spawn(
        "py-spy", program, "record", *options, "--nonblocking", "--format", "raw", "--output", str(stacks)
    )
    try:
        yield profile
    finally:
        recorder.process.send_signal(signal.SIGINT)  # it writes what it has
        recorder.process.wait(20)
    if stacks.exists():
        profile.shares = shares(stacks.read_text().splitlines())


def shares(lines: Iterable[str]) -> dict[str, float]:
    """Return the share of the samples that each part has, largest first. A line: `FRAME;FRAME;... COUNT`."""
    counts: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        counts[part_of(stack.split(";"))] += int(count)
    total = counts.total()
    return {part: round(count / total, 3) for part, count in counts.most_common()}


def part_of(frames: list[str]) -> str:
    """Return the part that a stack belongs to. Frames come outermost first, as `FUNCTION (FILE:LINE)`."""
    for frame in reversed(frames):
        function, _, place = frame.partition(" (")
        file = place.rpartition(":")[0]
        for part, owned in _PARTS:
            if any(_owns(own, file, function) for own in owned):
                return part
    return _ELSE


def _owns(own: str, file: str, function: str) -> bool:
    where, _, name = own.partition(":")
    return where in file and (not name or function.startswith(name))
