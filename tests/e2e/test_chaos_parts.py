"""What chaos breaks things with: daemons that are kept, disks that are full, cables that lose, clocks that are off."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.clock import WallClock
from tests.chaos.disk import SmallDisk
from tests.chaos.impair import CLEAN, Impairment
from tests.chaos.keeper import Keeper
from tests.chaos.wire import WireCable
from tests.e2e.harness import Daemon, eventually
from tests.e2e.hosts import lan

pytestmark = pytest.mark.e2e


class _Kept:
    """A daemon whose process is `script`, and how often it was started."""

    def __init__(self, directory: Path, script: str) -> None:
        self.started: list[Daemon] = []
        self._log = directory / "log"
        self._script = script
        self.keeper = Keeper("it", self._spawn)
        self.keeper.start()

    def _spawn(self) -> Daemon:
        self.started.append(Daemon("it", ["sh", "-c", self._script], self._log))
        return self.started[-1]

    def runs(self, nth: int) -> bool:
        return len(self.started) == nth and self.started[-1].process.poll() is None

    def close(self) -> None:
        self.keeper.close()
        for daemon in self.started:
            daemon.kill()


SERVES = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[_Kept]:
    made = _Kept(tmp_path, SERVES)
    eventually(lambda: "ready" in made.started[0].output())
    yield made
    made.close()


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_daemon_that_was_ended_on_purpose_stays_away_until_it_is_released(kept: _Kept, how: str) -> None:
    getattr(kept.keeper, how)()
    assert not kept.runs(1)
    kept.keeper.release()
    eventually(lambda: kept.runs(2))
    assert kept.keeper.exits == []


def test_a_daemon_that_is_killed_and_stopped_before_it_was_started_again_has_not_ended_by_itself(kept: _Kept) -> None:
    kept.keeper.kill()
    kept.keeper.release()
    kept.keeper.stop()
    kept.keeper.release()
    eventually(lambda: kept.runs(2))
    assert kept.keeper.exits == []


def test_a_daemon_that_ends_by_itself_is_started_again_and_that_is_noted(kept: _Kept) -> None:
    kept.started[0].process.kill()
    eventually(lambda: kept.runs(2))
    assert [(each.daemon, each.status) for each in kept.keeper.exits] == [("it", -9)]


@pytest.mark.parametrize("status", [0, 78])
def test_a_daemon_that_systemd_would_leave_alone_is_left_alone(tmp_path: Path, status: int) -> None:
    kept = _Kept(tmp_path, f"exit {status}")
    eventually(lambda: kept.keeper.exits)
    kept.close()
    assert [each.status for each in kept.keeper.exits] == [status]
    assert len(kept.started) == 1


def test_a_full_disk_takes_not_a_byte_and_has_room_again_when_it_is_freed(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "disk", mib=8)
    try:
        file = disk.where / "file"
        file.touch()
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            file.write_bytes(b"x" * 5000)
        disk.free()
        file.write_bytes(b"x" * 5000)
    finally:
        disk.close()
    assert not os.path.ismount(disk.where)


#: Sends 20 datagrams and prints how many came back, one by one.
_ECHO = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ends:
    ends.settimeout(0.4)
    for number in range(20):
        ends.sendto(bytes([number]), (sys.argv[1], int(sys.argv[2])))
    back = 0
    try:
        while True:
            ends.recv(1)
            back += 1
    except TimeoutError:
        print(back)
"""


def test_a_cable_passes_loses_and_doubles_frames_each_way_as_it_is_told() -> None:
    cables: list[WireCable] = []

    def lay(name: str, namespace: str, bridge: str) -> WireCable:
        cables.append(WireCable(name, namespace, bridge))
        return cables[-1]

    with lan(lay) as network, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
        host = network.add_bare_host()
        echo.bind((network.gateway, 0))
        echo.settimeout(0.4)

        def answered() -> tuple[int, int]:
            """Return how many of 20 reach the gateway, and how many of its answers come back."""
            command = [*host.prefix, sys.executable, "-c", _ECHO, network.gateway, str(echo.getsockname()[1])]
            heard = 0
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
                try:
                    while True:
                        datagram, address = echo.recvfrom(1)
                        echo.sendto(datagram, address)
                        heard += 1
                except TimeoutError:
                    pass
                return heard, int(asking.communicate()[0])

        eventually(lambda: answered() == (20, 20))
        for inward, outward, expected in (
            (CLEAN, Impairment(loss=1.0), (0, 0)),
            (Impairment(loss=1.0), CLEAN, (20, 0)),
            (CLEAN, Impairment(duplicate=1.0), (40, 40)),
        ):
            cables[0].impair(inward=inward, outward=outward)
            # The neighbours' addresses are known by now, so nothing else is lost or doubled.
            eventually(lambda expected=expected: answered() == expected)  # type: ignore[misc]


def test_a_clock_is_off_while_the_process_runs_and_its_monotonic_clock_is_not(tmp_path: Path) -> None:
    clock = WallClock(tmp_path / "clock")
    program = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
    command = [sys.executable, "-c", program]
    environment = {**os.environ, **clock.environment}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask() -> list[float]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return [float(each) for each in process.stdout.readline().split()]

        wall, monotonic = ask()
        clock.shift(-3600)
        later_wall, later_monotonic = ask()
        assert -3601 < later_wall - wall < -3500
        assert 0 <= later_monotonic - monotonic < 100
        clock.shift(0)
        assert ask()[0] >= wall
        process.stdin.close()
