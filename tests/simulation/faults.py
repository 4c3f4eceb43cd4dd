"""What a plan's faults do to the world. Each is undone by itself in time, or by `calm`."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from tests.simulation.disk import Disk
from tests.simulation.machine import SimulatedMachine
from tests.simulation.network import Link, Way
from tests.simulation.plan import CONTROLPLANE, Act, Machine
from tests.simulation.process import MachineClock
from tests.simulation.world import World

__all__ = ["calm", "carry_out"]

Arguments = dict[str, Any]


def carry_out(world: World, act: Act) -> None:
    """Begin a fault; nothing, if what it is to hit isn't there."""
    known = act.subject == CONTROLPLANE or act.subject in world.machines
    if act.kind != "add_host" and not known:
        return
    world.faults[act.kind] = world.faults.get(act.kind, 0) + 1
    world.say("fault", f"{act.kind} {act.subject} {msgspec.json.encode(act.arguments).decode()}")
    if act.kind == "add_host":
        world.add_machine(msgspec.convert(act.arguments, Machine))
    elif act.kind in _ON_DAEMONS:
        _ON_DAEMONS[act.kind](world, act.subject, act.arguments)
    elif act.kind in _ON_LINKS:
        _ON_LINKS[act.kind](world, world.network.link(act.subject), act.arguments)
    else:
        _ON_ENGINES[act.kind](world, world.machines[act.subject], act.arguments)


def calm(world: World) -> None:
    """End every fault, so that from here on all is well."""
    for link in world.network.links.values():
        for way in (link.up, link.down):
            way.delay_s = 0.0
            way.spoiling.clear()
            way.mend()
    clocks = [world.controlplane_clock, *(machine.clock for machine in world.machines.values())]
    for clock in clocks:
        clock.drift(1.0)
    for disk in (world.controlplane_disk, *(machine.disk for machine in world.machines.values())):
        disk.full, disk.slowness, disk.interrupt = False, 1.0, None
    for process in world.processes.values():
        process.spare()


# ---------------------------------------------------------------- daemons, clocks and disks


def _kill(world: World, name: str, arguments: Arguments) -> None:
    world.kill(name, after_steps=arguments["after_steps"], down_s=arguments["down_s"])


def _torn(world: World, name: str, arguments: Arguments) -> None:
    _disk(world, name).interrupt = lambda: world.kill(name, down_s=arguments["down_s"], torn=True)


def _clock(world: World, name: str) -> MachineClock:
    return world.controlplane_clock if name == CONTROLPLANE else world.machines[name].clock


def _disk(world: World, name: str) -> Disk:
    return world.controlplane_disk if name == CONTROLPLANE else world.machines[name].disk


def _clock_jump(world: World, name: str, arguments: Arguments) -> None:
    _clock(world, name).jump(arguments["seconds"])


def _clock_drift(world: World, name: str, arguments: Arguments) -> None:
    _clock(world, name).drift(arguments["rate"])


def _disk_full(world: World, name: str, arguments: Arguments) -> None:
    disk = _disk(world, name)
    disk.full = True

    def over() -> None:
        disk.full = False

    world.loop.after(arguments["seconds"], over, None)


def _disk_slow(world: World, name: str, arguments: Arguments) -> None:
    disk = _disk(world, name)
    disk.slowness = arguments["factor"]

    def over() -> None:
        disk.slowness = 1.0

    world.loop.after(arguments["seconds"], over, None)


# ---------------------------------------------------------------- links


def _ways(link: Link, direction: str) -> tuple[Way, ...]:
    return {"up": (link.up,), "down": (link.down,), "both": (link.up, link.down)}[direction]


def _cut(world: World, link: Link, arguments: Arguments) -> None:
    ways = _ways(link, arguments["direction"])
    for way in ways:
        way.cut()

    def over() -> None:
        for way in ways:
            way.mend()

    world.loop.after(arguments["seconds"], over, None)


def _delay(world: World, link: Link, arguments: Arguments) -> None:
    ways = (link.up, link.down)
    for way in ways:
        way.delay_s = arguments["seconds"]

    def over() -> None:
        for way in ways:
            way.delay_s = 0.0

    world.loop.after(arguments["for_s"], over, None)


def _drop(world: World, link: Link, _: Arguments) -> None:
    world.network.drop(next(name for name, of in world.network.links.items() if of is link))


def _lose_sets(_: World, link: Link, arguments: Arguments) -> None:
    link.down.spoiling.extend([arguments["how"]] * arguments["count"])


# ---------------------------------------------------------------- Engines


def _engine_restart(_: World, machine: SimulatedMachine, arguments: Arguments) -> None:
    machine.engine.restart(live_restore=arguments["live_restore"], seconds=arguments["seconds"])


_ON_DAEMONS: Final[dict[str, Callable[[World, str, Arguments], None]]] = {
    "kill_agent": _kill,
    "kill_controlplane": _kill,
    "torn_write": _torn,
    "clock_jump": _clock_jump,
    "clock_drift": _clock_drift,
    "disk_full": _disk_full,
    "disk_slow": _disk_slow,
}
_ON_LINKS: Final[dict[str, Callable[[World, Link, Arguments], None]]] = {
    "cut": _cut,
    "delay": _delay,
    "drop_connection": _drop,
    "lose_sets": _lose_sets,
}
_ON_ENGINES: Final[dict[str, Callable[[World, SimulatedMachine, Arguments], object]]] = {
    "engine_hang": lambda _, machine, arguments: machine.engine.hang(arguments["seconds"]),
    "engine_down": lambda _, machine, arguments: machine.engine.down(arguments["seconds"]),
    "engine_restart": _engine_restart,
    "engine_forget": lambda _, machine, arguments: machine.engine.forget(arguments["which"]),
    "engine_lose_events": lambda _, machine, arguments: machine.engine.lose_events(arguments["seconds"]),
    "engine_late_events": lambda _, machine, arguments: machine.engine.late_events(arguments["seconds"]),
    "engine_disk_full": lambda _, machine, arguments: machine.engine.disk_full(arguments["seconds"]),
}
