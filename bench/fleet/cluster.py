"""A control plane and its simulated hosts, as processes, seen from the one that measures."""

import asyncio
import json
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.request import urlopen

import psutil

from tests.e2e.harness import Daemon, Installation

__all__ = ["Cluster", "Cpu", "Hosts", "TooSlow", "until"]

#: What one activation can register, as in SSM.
_MAX_REGISTRATIONS: Final = 1000
#: The end of a log that surely holds the last line of a process of hosts.
_TAIL_BYTES: Final = 4096
_LOOK_EVERY_S: Final = 0.02
#: A control plane that is just met by a whole fleet takes its time to answer.
_PATIENCE_S: Final = 60.0
#: One host in so many is in a process of its own, to be lost.
_LOST_SHARE: Final = 10


class TooSlow(AssertionError):
    """Something has not come about in the time that it is given."""


async def until(reached: Callable[[], bool], *, within_s: float, what: str) -> None:
    """Wait until `reached` is true, which costs nobody but this process. Raises TooSlow."""
    deadline = time.monotonic() + within_s
    while not reached():
        if time.monotonic() > deadline:
            raise TooSlow(f"not within {within_s:.0f} s: {what}")
        await asyncio.sleep(_LOOK_EVERY_S)


class Cpu(NamedTuple):
    """CPU seconds used so far by the control plane, and by the processes of simulated hosts."""

    control_plane: float
    hosts: float

    def since(self, before: "Cpu") -> "Cpu":
        """Return what was used since then."""
        return Cpu(self.control_plane - before.control_plane, self.hosts - before.hosts)


class Hosts:
    """A process of simulated hosts; see `bench.fleet.hosts`."""

    def __init__(self, daemon: Daemon, count: int) -> None:
        self.daemon = daemon
        self.count = count
        self.alive = True
        self._used_s = 0.0

    def tally(self) -> dict[str, Any]:
        """Return what the process last told: `bench.fleet.workload.Tally`, and when (`at`, monotonic seconds)."""
        with self.daemon.log.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines(keepends=True)
        whole = [line for line in lines if line.startswith('{"at"') and line.endswith("\n")]
        if self.alive and self.daemon.process.poll() is not None:
            raise TooSlow(f"a process of simulated hosts has ended: {''.join(lines)[-2000:]}")
        told: dict[str, Any] = json.loads(whole[-1]) if whole else {"at": 0.0, "tasks": {}}
        return told

    def began_at(self) -> float:
        """Return when the process told its first, in monotonic seconds."""
        with self.daemon.log.open() as log:
            return float(json.loads(next(line for line in log if line.startswith('{"at"')))["at"])

    def connect(self) -> None:
        """Let all of them connect, at once."""
        self.daemon.process.send_signal(signal.SIGUSR1)

    def cpu_s(self) -> float:
        """Return the CPU seconds used so far, or until the process was killed."""
        if self.alive:
            self._used_s = _cpu_s(self.daemon)
        return self._used_s

    def kill(self) -> None:
        """Lose all of them, at once."""
        self.cpu_s()
        self.alive = False
        self.daemon.kill()


class Cluster:
    """A control plane with a journal on disk, and hosts in two processes: those that stay, and those that are lost."""

    def __init__(self, homeport: Installation, hosts: int) -> None:
        self.homeport = homeport
        self.hosts = hosts
        self._hosts: list[Hosts] = []

    def start(self) -> None:
        """Start the control plane. A socket for each host: the daemons inherit this process's limit."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.restart()

    def restart(self) -> None:
        """Start the control plane (again), and wait until it is ready."""
        self.homeport.start_control_plane("--heartbeat", "5")

    def start_hosts(self) -> None:
        """Start both processes of hosts, which begin to join."""
        lost = max(1, self.hosts // _LOST_SHARE)
        ssm = self.homeport.client("ssm")
        pairs = [
            ssm.create_activation(IamRole="homeport", RegistrationLimit=_MAX_REGISTRATIONS)
            for _ in range(-(-self.hosts // _MAX_REGISTRATIONS))
        ]
        activations = [each[member] for each in pairs for member in ("ActivationId", "ActivationCode")]

        def spawn(name: str, first: int, count: int) -> Hosts:
            arguments = [self.homeport.endpoint["local_url"], str(first), str(count), *activations]
            return Hosts(
                self.homeport.spawn(name, sys.executable, "-m", "bench.fleet.hosts", *arguments),
                count,
            )

        staying = spawn("staying", 0, self.hosts - lost)
        self._hosts = [staying, spawn("doomed", self.hosts - lost, lost)]

    @property
    def staying(self) -> Hosts:
        """Those that live until the end."""
        return self._hosts[0]

    @property
    def doomed(self) -> Hosts:
        """Those that are lost at the end."""
        return self._hosts[1]

    @property
    def groups(self) -> list[Hosts]:
        """The processes of hosts that live."""
        return [each for each in self._hosts if each.alive]

    def told(self, member: str) -> int:
        """Return the sum of a count that the hosts tell, e.g. `sessions`."""
        return sum(each.tally().get(member, 0) for each in self.groups)

    def tasks(self, name: str) -> int:
        """Return how many reports of a kind the hosts have made, e.g. "app RUNNING"."""
        return sum(each.tally()["tasks"].get(name, 0) for each in self.groups)

    def span(self) -> float:
        """Return the seconds from the first that a process of hosts has told to the last."""
        last = max(float(each.tally()["at"]) for each in self.groups)
        return last - min(each.began_at() for each in self.groups)

    def cpu(self) -> Cpu:
        """Return the CPU time used so far."""
        return Cpu(_cpu_s(self.homeport.control_plane), sum(each.cpu_s() for each in self._hosts))

    def rss_mb(self) -> float:
        """Return the control plane's resident memory."""
        return float(psutil.Process(self.homeport.control_plane.pid).memory_info().rss) / 1e6

    def sessions(self) -> int:
        """Return how many hosts the control plane holds for connected."""
        return self._metric("homeport_agent_sessions")

    def reached_running(self) -> int:
        """Return how many tasks have become RUNNING since the control plane was started, by what it holds in memory."""
        return self._metric('homeport_task_transitions_total{status="RUNNING"}')

    def make_durable(self) -> None:
        """Return once what the control plane holds in memory now is durable, which is what its readiness means."""
        self.get("/readyz")

    def get(self, path: str) -> str:
        """GET a path of the control plane's, which may be busy."""
        with urlopen(self.homeport.endpoint["local_url"] + path, timeout=_PATIENCE_S) as answer:
            text: str = answer.read().decode()
            return text

    def _metric(self, series: str) -> int:
        found = re.search(rf"^{re.escape(series)} (\S+)", self.get("/metrics"), re.M)
        assert found, f"no metric {series}"
        return int(float(found[1]))


def _cpu_s(daemon: Daemon) -> float:
    return float(sum(psutil.Process(daemon.pid).cpu_times()[:2]))
