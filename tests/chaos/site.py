"""The real thing in small: a control plane and hosts, each in a network of its own, on small disks, kept running."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.chaos.clock import WallClock
from tests.chaos.disk import SmallDisk
from tests.chaos.keeper import Keeper
from tests.chaos.plan import CONTROL_PLANE
from tests.chaos.wire import WireCable
from tests.e2e.harness import Daemon, Installation, eventually
from tests.e2e.hosts import EngineHost, Lan, NetHost, lan, sh

__all__ = ["FOREIGN", "HostNode", "Node", "Site", "site"]

#: What isn't ours, on each host: a container, a volume and a network of this name.
FOREIGN: Final = "foreign"

_PORT: Final = 6180
_CONTROL_PLANE_MIB: Final = 192
_AGENT_MIB: Final = 32
#: Containers of stopped tasks, and the tasks, stay until the run has been judged.
_KEEP_S: Final = 86_400


@dataclass(frozen=True)
class Node:
    """A network of its own, and one of our daemons in it with its disk and its clock."""

    name: str
    host: NetHost
    cable: WireCable
    disk: SmallDisk
    clock: WallClock
    keeper: Keeper


@dataclass(frozen=True)
class HostNode(Node):
    """A node with an Engine."""

    engine_host: EngineHost
    live_restore: bool
    instance: str
    #: A container that isn't ours.
    foreign: str

    def docker(self, *arguments: str) -> str:
        return self.engine_host.docker(*arguments)


class Site:
    """What there is. Everything is started; `controlplane` and `hosts` by their names in the plan are `nodes`."""

    def __init__(self, fleet: Installation, controlplane: Node, image: str) -> None:
        self.fleet = fleet
        #: Where containers leave their marks: a directory of their hosts that neither Homeport nor an Engine writes to.
        self.ground = fleet.directory / "ground"
        self.ground.mkdir()
        self.image = image
        self.controlplane = controlplane
        self.hosts: dict[str, HostNode] = {}

    @property
    def nodes(self) -> dict[str, Node]:
        return {CONTROL_PLANE: self.controlplane, **self.hosts}

    @property
    def keepers(self) -> list[Keeper]:
        return [node.keeper for node in self.nodes.values()]

    def container_instances(self, client: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.describe_container_instances(
            containerInstances=[host.instance for host in self.hosts.values()], include=["CONTAINER_INSTANCE_HEALTH"]
        )["containerInstances"]
        return found


@contextmanager
def site(directory: Path, *, hosts: int, image: str, seed: int) -> Iterator[Site]:
    """Yield a Site below `directory`; nothing is left of it afterwards but logs."""
    cables: list[WireCable] = []

    def lay(name: str, namespace: str, bridge: str) -> WireCable:
        cables.append(WireCable(name, namespace, bridge, seed=seed + len(cables)))
        return cables[-1]

    with ExitStack() as stack:
        network = stack.enter_context(lan(lay))
        _let_through(stack, network.bridge)
        bare = network.add_bare_host()
        fleet = Installation(directory, listen=f"{bare.address}:{_PORT}")
        stack.callback(fleet.stop_all)
        made = Site(fleet, _control_plane(stack, fleet, bare, cables[-1]), image)
        for number in range(1, hosts + 1):
            # The last host's containers end with its Engine; those of the others outlive it.
            host = _host(stack, fleet, network, cables, f"host-{number}", image, live_restore=number < hosts)
            made.hosts[host.name] = host
        eventually(lambda: all(each["agentConnected"] for each in made.container_instances(fleet.ecs)), within_s=60)
        yield made


def _let_through(stack: ExitStack, bridge: str) -> None:
    """Let hosts reach each other: Docker's rules on this machine forward nothing, not even within a bridge."""
    rule = ("FORWARD", "--in-interface", bridge, "--out-interface", bridge, "--jump", "ACCEPT")
    sh("iptables", "--wait", "--insert", *rule)
    stack.callback(sh, "iptables", "--wait", "--delete", *rule)


def _keep(stack: ExitStack, name: str, spawn: partial[Daemon]) -> Keeper:
    keeper = Keeper(name, spawn)
    keeper.start()
    stack.callback(keeper.close)
    return keeper


def _control_plane(stack: ExitStack, fleet: Installation, host: NetHost, cable: WireCable) -> Node:
    disk = SmallDisk(fleet.directory / "cp", mib=_CONTROL_PLANE_MIB)
    stack.callback(disk.close)
    stack.callback(fleet.stop_all)
    clock = WallClock(fleet.directory / "controlplane.clock")
    command = fleet.control_plane_command("--stopped-task-retention", str(_KEEP_S))
    spawn = partial(fleet.spawn, CONTROL_PLANE, *command, prefix=host.prefix, env=clock.environment)
    keeper = _keep(stack, CONTROL_PLANE, spawn)
    eventually(lambda: fleet.get("/readyz").startswith("ok"))
    return Node(CONTROL_PLANE, host, cable, disk, clock, keeper)


def _host(
    stack: ExitStack,
    fleet: Installation,
    network: Lan,
    cables: list[WireCable],
    name: str,
    image: str,
    *,
    live_restore: bool,
) -> HostNode:
    host = network.add_host()
    cable = cables[-1]
    host.start_engine(live_restore=live_restore)
    host.load(image)
    foreign = host.docker("run", "--detach", "--restart", "always", "--name", FOREIGN, image, "sleep", "1000000")
    for kind in ("volume", "network"):
        host.docker(kind, "create", FOREIGN)
    disk = SmallDisk(fleet.directory / name, mib=_AGENT_MIB)
    stack.callback(disk.close)
    stack.callback(fleet.stop_all)
    trust = ["--ca-hash", fleet.endpoint["ca_hash"]]
    fleet.join(name, server=fleet.endpoint["network_url"], prefix=host.prefix, options=trust)
    clock = WallClock(fleet.directory / f"{name}.clock")
    command = fleet.agent_command(name, "--cleanup-after", str(_KEEP_S))
    environment = {**clock.environment, "DOCKER_HOST": host.engine.docker_host}
    spawn = partial(fleet.spawn, name, *command, prefix=host.prefix, env=environment)
    return HostNode(
        name=name,
        host=host,
        cable=cable,
        disk=disk,
        clock=clock,
        keeper=_keep(stack, name, spawn),
        engine_host=host,
        live_restore=live_restore,
        instance=fleet.instance_id(name),
        foreign=foreign.strip(),
    )
