"""Further hosts on one machine: a network namespace with a Docker Engine of its own each, joined by a bridge."""

import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from tests.e2e.harness import Installation, eventually
from tests.engine.dockerd import OwnEngine

__all__ = ["Cable", "EngineHost", "Lan", "NetHost", "add_engine_host", "lan", "sh"]

H = TypeVar("H", bound="NetHost")

#: So many networks 10.200.0.0/24 to 10.249.249.0/24 there are, and as many names of bridges.
_NETWORKS = 50 * 250


def sh(*command: str, check: bool = True) -> str:
    """Run a command; return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
    return done.stdout


class Cable(Protocol):
    """What joins a host's eth0 to the bridge."""

    def cut(self) -> None:
        """Nothing passes, and both ends see it."""
        ...

    def mend(self) -> None: ...

    def close(self) -> None: ...


class VethCable:
    """A cable as the kernel makes them."""

    def __init__(self, name: str, namespace: str, bridge: str) -> None:
        self._name = name
        sh("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        sh("ip", "link", "set", name, "master", bridge, "up")

    def cut(self) -> None:
        sh("ip", "link", "set", self._name, "down")

    def mend(self) -> None:
        sh("ip", "link", "set", self._name, "up")

    def close(self) -> None:
        sh("ip", "link", "del", self._name, check=False)


class NetHost:
    """A host in a namespace: a network of its own, on a cable that can be pulled."""

    def __init__(
        self, name: str, address: str, gateway: str, bridge: str, lay: Callable[[str, str, str], Cable] = VethCable
    ) -> None:
        self.name = name
        self.address = address
        sh("ip", "netns", "add", name)
        self.cable = lay(f"{name}c", name, bridge)
        self.inside("ip", "link", "set", "lo", "up")
        self.inside("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        self.inside("ip", "link", "set", "eth0", "up")
        self.inside("ip", "route", "add", "default", "via", gateway)

    @property
    def prefix(self) -> list[str]:
        """What runs a command in this host's network. (Not `ip netns exec`: that hides the cgroups.)"""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def inside(self, *command: str) -> str:
        return sh(*self.prefix, *command)

    def cut(self) -> None:
        """Pull the network cable."""
        self.cable.cut()

    def mend(self) -> None:
        """Put the network cable back."""
        self.cable.mend()

    def close(self) -> None:
        self.cable.close()
        sh("ip", "netns", "del", self.name, check=False)


class EngineHost(NetHost):
    """A host with an `engine` that can be killed, frozen and started again."""

    def __init__(
        self,
        name: str,
        address: str,
        gateway: str,
        bridge: str,
        lay: Callable[[str, str, str], Cable] = VethCable,
    ) -> None:
        super().__init__(name, address, gateway, bridge, lay)
        directory = Path(tempfile.mkdtemp(prefix="homeport-"))  # short: sockets' paths may have 107 characters
        self.engine = OwnEngine(directory, enter=self.prefix)

    def start_engine(self, *, live_restore: bool = True) -> None:
        self.engine.start(live_restore=live_restore)
        eventually(lambda: self.docker("version", "--format", "{{.Server.Version}}"), within_s=60)

    def docker(self, *arguments: str, check: bool = True) -> str:
        return sh("docker", "-H", self.engine.docker_host, *arguments, check=check)

    def load(self, image: str) -> None:
        """Copy an image of this machine's Engine into this host's."""
        command = ["docker", "-H", self.engine.docker_host, "load"]
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
            subprocess.run(command, stdin=save.stdout, check=True, capture_output=True, timeout=60)

    def close(self) -> None:
        self.engine.close()
        super().close()


def _new_bridge() -> int:
    """Make a bridge `hpt<number>` of a number that nobody has, whoever else runs tests on this machine just now."""
    for number in random.sample(range(_NETWORKS), k=10):
        command = ["ip", "link", "add", f"hpt{number}", "type", "bridge"]
        made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if made.returncode == 0:
            return number
    raise AssertionError(made.stderr)


class Lan:
    """A bridge with hosts on it; this machine is `gateway`."""

    def __init__(self, lay: Callable[[str, str, str], Cable] = VethCable) -> None:
        serial = _new_bridge()
        self._lay = lay
        self.bridge = f"hpt{serial}"
        self._net = f"10.{200 + serial % 50}.{serial // 50 % 250}"
        self.gateway = f"{self._net}.1"
        self.hosts: list[NetHost] = []
        sh("ip", "addr", "add", f"{self.gateway}/24", "dev", self.bridge)
        sh("ip", "link", "set", self.bridge, "up")

    def add_host(self) -> EngineHost:
        """Add a host with an Engine (not started)."""
        return self._add(EngineHost)

    def add_bare_host(self) -> NetHost:
        """Add a host with a network alone."""
        return self._add(NetHost)

    def _add(self, kind: type[H]) -> H:
        number = len(self.hosts) + 2
        host = kind(f"{self.bridge}h{number}", f"{self._net}.{number}", self.gateway, self.bridge, self._lay)
        self.hosts.append(host)
        return host

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        sh("ip", "link", "del", self.bridge, check=False)


@contextmanager
def lan(lay: Callable[[str, str, str], Cable] = VethCable) -> Iterator[Lan]:
    """Yield a Lan; everything made for it is gone afterwards."""
    made = Lan(lay)
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
