"""The Engine's log files as a spool, on an Engine of the test's own: killed, started again, and on a full disk."""

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from agent.engine.docker import DockerEngine
from agent.logs.disk import NO_ROOM, DiskWatch
from homeport.clock import SystemClock
from homeport.protocol import LogKind
from homeport.spec import LogShipping
from tests.engine.busybox import import_image
from tests.engine.conftest import Lab
from tests.engine.dockerd import OwnEngine
from tests.engine.test_failures import IMAGE, up
from tests.fakes.fleet import eventually
from tests.fakes.log_intake import Kept, LogIntake, serve_intake
from tests.fakes.shipping import Shipyard, a_state

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="needs dockerd to start one of its own"),
]

SHIPPING = LogShipping(group="g", stream_prefix="p")
#: A line every 5 ms, or as fast as the machine can.
COUNTING = "i=1; while :; do echo $i; i=$((i+1)); sleep 0.005; done"
DISK_BYTES = 64 * 1024 * 1024


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnEngine]:
    """An Engine whose data is on a disk of 64 MiB."""
    directory = tmp_path_factory.mktemp("engine")
    data = directory / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(data)], check=True)
    own = OwnEngine(directory)
    own.start()
    try:
        asyncio.run(_prepare(own))
        yield own
    finally:
        own.close()


async def _prepare(own: OwnEngine) -> None:
    async with DockerEngine(own.docker_host) as engine:
        await up(engine, own)
    await import_image(IMAGE, own.docker_host)


@pytest.fixture
async def lab(own: OwnEngine) -> AsyncIterator[Lab]:
    async with DockerEngine(own.docker_host) as engine:
        lab = Lab(engine, IMAGE)
        try:
            yield lab
        finally:
            await lab.close()


@pytest.fixture
async def intake() -> AsyncIterator[LogIntake]:
    async with serve_intake() as intake:
        yield intake


async def test_shipping_goes_on_over_a_restart_of_the_engine(
    own: OwnEngine, lab: Lab, intake: LogIntake, tmp_path: Path
) -> None:
    container = await lab.start("sh", "-c", COUNTING, shipping=SHIPPING)
    kept = intake.of("t1")
    async with Shipyard(lab.engine, intake, tmp_path).running(a_state(container)):
        await eventually(lambda: len(kept.lines) > 50)
        own.kill()
        own.start()
        await up(lab.engine, own)
        before = len(kept.lines)
        await eventually(lambda: len(kept.lines) > before + 100)
    # What an Engine that is killed has read and not written is its own loss: some lines, at the kill.
    assert missing(kept, container) <= 1
    assert kept.gaps == []


async def test_a_full_disk_is_marked_and_heals(own: OwnEngine, lab: Lab, intake: LogIntake, tmp_path: Path) -> None:
    container = await lab.start("sh", "-c", COUNTING, shipping=SHIPPING)
    kept = intake.of("t1")
    data = own.directory / "data"
    async with Shipyard(lab.engine, intake, tmp_path).running(a_state(container)) as shipper:
        disk = DiskWatch(lambda: str(data), shipper.streams, clock=SystemClock())
        await disk.look()
        await eventually(lambda: len(kept.lines) > 10)
        filler = data / "filler"
        await asyncio.to_thread(fill, filler)
        await disk.look()
        await eventually(lambda: shipper.streams()[0].behind_since is None)
        before = len(kept.lines)
        await asyncio.sleep(0.5)  # the container goes on writing: nothing tells so from outside
        assert (await lab.inspect(container)).state == "running"
        filler.unlink()
        await disk.look()
        await eventually(lambda: len(kept.lines) > before + 50)
    assert [text for text in kept.gaps if text.endswith(NO_ROOM)] != []
    assert missing_unmarked(kept) == []


def fill(path: Path) -> None:
    """Write until there is no room, and then for a while more: what becomes free is taken, too."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    assert os.statvfs(path).f_bfree == 0


def missing(kept: Kept, container: str) -> int:
    """How often numbers are missing. None may come twice, or out of order."""
    numbers = [int(line) for line in kept.lines]
    assert numbers == sorted(set(numbers))
    return sum(after != before + 1 for before, after in itertools.pairwise(numbers))


def missing_unmarked(kept: Kept) -> list[tuple[int, int]]:
    """Return the holes in the numbers that no gap's times cover."""
    spans = [
        tuple(datetime.fromisoformat(time).timestamp() * 1000 for time in re.findall(r"\d{4}-\S+?Z", text))
        for text in kept.gaps
    ]
    lines = [(at, int(text)) for at, kind, text in kept.events if kind != LogKind.GAP]
    holes = [(a, b) for a, b in itertools.pairwise(lines) if b[1] != a[1] + 1]
    # A gap tells milliseconds.
    return [(a[1], b[1]) for a, b in holes if not any(s[0] <= b[0] + 1 and s[-1] >= a[0] - 1 for s in spans if s)]
