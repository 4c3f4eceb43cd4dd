"""What a failing test can tell of an Engine that doesn't answer."""

import os
import signal
from pathlib import Path

import pytest

from tests.engine.conftest import Lab
from tests.engine.stacks import engine_stacks, summary

STACKS = """goroutine 7 [select, 5 minutes]:
github.com/containerd/ttrpc.(*Client).Call(0xc0)
\t/src/client.go:1 +0x1
github.com/docker/docker/libcontainerd/remote.(*client).getContainer(0xc0, {0x1, 0x2})
\t/src/client.go:1 +0x1
github.com/docker/docker/daemon.(*Daemon).ContainerRm(0xc0)
\t/src/delete.go:1 +0x1

goroutine 8 [select]:
github.com/docker/docker/libcontainerd/remote.(*client).getContainer(0xc0, {0x1, 0x2})
\t/src/client.go:1 +0x1
github.com/docker/docker/daemon.(*Daemon).ContainerRm(0xc0)
\t/src/delete.go:1 +0x1

goroutine 9 [IO wait]:
internal/poll.runtime_pollWait(0x1)
\t/src/poll.go:1 +0x1
"""


def test_goroutines_in_the_same_place_are_counted() -> None:
    place = "select in libcontainerd/remote.(*client).getContainer < daemon.(*Daemon).ContainerRm"
    assert summary(STACKS).strip() == f"2 x {place}"


def test_the_number_of_a_dockerd_that_is_gone_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "docker.pid"
    stale.write_text(str(os.getpid()))
    monkeypatch.setattr("tests.engine.stacks._PID", stale)
    signals: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: signals.append(number))
    try:
        assert engine_stacks() == "no dockerd is running"
        assert signals == []
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.engine
async def test_a_running_engine_shows_what_it_does(lab: Lab) -> None:
    if not Path("/var/run/docker.pid").exists():
        pytest.skip("the Engine is on another machine")
    await lab.start("sleep", "1000")
    shown = engine_stacks()
    assert shown.startswith("dockerd (")
    assert "x select in libcontainerd/remote.(*client).processEventStream" in shown
