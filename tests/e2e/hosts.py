"""Further hosts on one machine: a network namespace with a Docker Engine of its own each, joined by a bridge."""

import itertools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.harness import Installation, eventually
from tests.engine.dockerd import OwnEngine

__all__ = ["EngineHost", "Lan", "add_engine_host", "lan"]

_serial = itertools.count(os.getpid() % 20_000)


def _sh(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
    return done.stdout


class EngineHost:
    """A host in a namespace. Its cable can be pulled; its `engine` can be killed, frozen and started again."""

    def __init__(self, name: str, address: str, gateway: str, bridge: str, directory: Path) -> None:
        self.name = name
        self.address = address
        self._cable = f"{name}c"
        _sh("ip", "netns", "add", name)
        _sh("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _sh("ip", "link", "set", self._cable, "master", bridge, "up")
        self.inside("ip", "link", "set", "lo", "up")
        self.inside("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        self.inside("ip", "link", "set", "eth0", "up")
        self.inside("ip", "route", "add", "default", "via", gateway)
        self.engine = OwnEngine(directory, enter=self.prefix)

    @property
    def prefix(self) -> list[str]:
        """What runs a command in this host's network. (Not `ip netns exec`: that hides the cgroups.)"""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def inside(self, *command: str) -> str:
        return _sh(*self.prefix, *command)

    def start_engine(self, *, live_restore: bool = True) -> None:
        self.engine.start(live_restore=live_restore)
        eventually(lambda: self.docker("version", "--format", "{{.Server.Version}}"), within_s=60)

    def docker(self, *arguments: str, check: bool = True) -> str:
        return _sh("docker", "-H", self.engine.docker_host, *arguments, check=check)

    def cut(self) -> None:
        """Pull the network cable."""
        _sh("ip", "link", "set", self._cable, "down")

    def mend(self) -> None:
        """Put the network cable back."""
        _sh("ip", "link", "set", self._cable, "up")

    def load(self, image: str) -> None:
        """Copy an image of this machine's Engine into this host's."""
        command = ["docker", "-H", self.engine.docker_host, "load"]
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
            subprocess.run(command, stdin=save.stdout, check=True, capture_output=True, timeout=60)

    def close(self) -> None:
        self.engine.close()
        _sh("ip", "link", "del", self._cable, check=False)
        _sh("ip", "netns", "del", self.name, check=False)


class Lan:
    """A bridge with hosts on it; this machine is `gateway`."""

    def __init__(self) -> None:
        serial = next(_serial)
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
        directory = Path(tempfile.mkdtemp(prefix="homeport-"))  # short: sockets' paths may have 107 characters
        host = EngineHost(name, f"{self._net}.{number}", self.gateway, self.bridge, directory)
        self.hosts.append(host)
        return host

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        _sh("ip", "link", "del", self.bridge, check=False)


@contextmanager
def lan() -> Iterator[Lan]:
    """Yield a Lan; everything made for it is gone afterwards."""
    made = Lan()
    try:
        yield made
    finally:
        made.close()


def add_engine_host(fleet: Installation, network: Lan, image: str, *, live_restore: bool = True) -> EngineHost:
    """Add a host with an Engine that has the image, join it over TLS, and start its agent."""
    host = network.add_host()
    host.start_engine(live_restore=live_restore)
    host.load(image)
    endpoint = fleet.endpoint
    fleet.join(
        host.name, server=endpoint["network_url"], prefix=host.prefix, options=["--ca-hash", endpoint["ca_hash"]]
    )
    fleet.start_agent(host.name, docker_host=host.engine.docker_host, prefix=host.prefix)
    return host
