"""Further hosts on one machine: a network namespace with a Docker Engine of its own each, joined by a bridge."""

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.harness import eventually

__all__ = ["EngineHost", "Lan", "lan"]

_serial = itertools.count(os.getpid() % 20_000)


def _sh(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
    return done.stdout


class EngineHost:
    """A host in a namespace. Its cable can be pulled, its Engine killed, frozen and started again."""

    def __init__(self, name: str, address: str, gateway: str, bridge: str, directory: Path) -> None:
        self.name = name
        self.address = address
        self.directory = directory
        self.socket = f"unix://{directory}/docker.sock"
        self._cable = f"{name}c"
        self._engine: subprocess.Popen[bytes] | None = None
        _sh("ip", "netns", "add", name)
        _sh("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _sh("ip", "link", "set", self._cable, "master", bridge, "up")
        self.inside("ip", "link", "set", "lo", "up")
        self.inside("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        self.inside("ip", "link", "set", "eth0", "up")
        self.inside("ip", "route", "add", "default", "via", gateway)

    @property
    def prefix(self) -> list[str]:
        """What runs a command in this host's network. (Not `ip netns exec`: that hides the cgroups.)"""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def inside(self, *command: str) -> str:
        return _sh(*self.prefix, *command)

    def start_engine(self, *options: str) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "dockerd.log").open("ab") as log:
            self._engine = subprocess.Popen(
                [
                    *self.prefix, "dockerd", "-H", self.socket,
                    "--data-root", str(self.directory / "data"), "--exec-root", str(self.directory / "exec"),
                    "--pidfile", str(self.directory / "docker.pid"), *options,
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        eventually(lambda: self.docker("version", "--format", "{{.Server.Version}}"), within_s=60)

    def docker(self, *arguments: str, check: bool = True) -> str:
        return _sh("docker", "-H", self.socket, *arguments, check=check)

    def kill_engine(self) -> None:
        """kill -9 of dockerd alone; its containers' shims stay."""
        assert self._engine is not None
        self._engine.kill()
        self._engine.wait(20)

    def freeze_engine(self) -> None:
        assert self._engine is not None
        self._engine.send_signal(signal.SIGSTOP)

    def thaw_engine(self) -> None:
        assert self._engine is not None
        self._engine.send_signal(signal.SIGCONT)

    def cut(self) -> None:
        """Pull the network cable."""
        _sh("ip", "link", "set", self._cable, "down")

    def mend(self) -> None:
        """Put the network cable back."""
        _sh("ip", "link", "set", self._cable, "up")

    def load(self, image: str) -> None:
        """Copy an image of this machine's Engine into this host's."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
            subprocess.run(
                ["docker", "-H", self.socket, "load"], stdin=save.stdout, check=True, capture_output=True, timeout=60
            )

    def close(self) -> None:
        if self._engine is not None and self._engine.poll() is None:
            self.thaw_engine()
            if left := self.docker("ps", "-aq", check=False).split():
                self.docker("rm", "-f", *left, check=False)
            self._engine.terminate()
            self._engine.wait(30)
        _sh("ip", "link", "del", self._cable, check=False)
        _sh("ip", "netns", "del", self.name, check=False)
        for mount in reversed(Path("/proc/mounts").read_text().splitlines()):
            where = mount.split()[1]
            if where.startswith(str(self.directory)):
                _sh("umount", "-l", where, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


class Lan:
    """A bridge with hosts on it; this machine is `gateway`."""

    def __init__(self, directory: Path) -> None:
        serial = next(_serial)
        self.directory = directory
        self.bridge = f"hpt{serial}"
        self._net = f"10.{200 + serial % 50}.{serial // 50 % 250}"
        self.gateway = f"{self._net}.1"
        self.hosts: list[EngineHost] = []
        _sh("ip", "link", "add", self.bridge, "type", "bridge")
        _sh("ip", "addr", "add", f"{self.gateway}/24", "dev", self.bridge)
        _sh("ip", "link", "set", self.bridge, "up")

    def add_host(self) -> EngineHost:
        number = len(self.hosts) + 2
        name = f"{self.bridge}h{number}"
        host = EngineHost(name, f"{self._net}.{number}", self.gateway, self.bridge, self.directory / name)
        self.hosts.append(host)
        return host

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        _sh("ip", "link", "del", self.bridge, check=False)


@contextmanager
def lan(directory: Path) -> Iterator[Lan]:
    """Yield a Lan; everything made for it is gone afterwards."""
    made = Lan(directory)
    try:
        yield made
    finally:
        made.close()
