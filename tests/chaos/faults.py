"""Making a fault happen, and ending it."""

from collections.abc import Callable
from typing import assert_never

from tests.chaos.impair import Impairment
from tests.chaos.keeper import Keeper
from tests.chaos.plan import Fault, Kind, Part
from tests.chaos.site import HostNode, Node, Site
from tests.engine.dockerd import OwnEngine

__all__ = ["begin"]

_NOTHING = Impairment(loss=1.0)


def begin(site: Site, fault: Fault) -> Callable[[], None]:
    """Begin the fault; return what ends it. Ending an Engine's absence returns before the Engine answers."""
    node = site.nodes[fault.node]
    match fault.part:
        case Part.CABLE:
            return _network(node, fault)
        case Part.ENGINE:
            assert isinstance(node, HostNode)
            return _engine(node.engine_host.engine, fault, live_restore=node.live_restore)
        case Part.CONTROL_PLANE | Part.AGENT:
            return _daemon(node, fault)
    assert_never(fault.part)


def _daemon(node: Node, fault: Fault) -> Callable[[], None]:
    keeper: Keeper = node.keeper
    match fault.kind:
        case Kind.KILL:
            keeper.kill()
            return keeper.release
        case Kind.STOP:
            keeper.stop()
            return keeper.release
        case Kind.FREEZE:
            keeper.freeze()
            return keeper.thaw
        case Kind.FILL:
            node.disk.fill()
            return node.disk.free
        case Kind.SHIFT:
            node.clock.shift(fault.amount)
            return lambda: node.clock.shift(0)
        case _:
            raise ValueError(fault)


def _engine(engine: OwnEngine, fault: Fault, *, live_restore: bool) -> Callable[[], None]:
    match fault.kind:
        case Kind.KILL:
            engine.kill()
        case Kind.STOP:
            engine.stop()
        case Kind.FREEZE:
            engine.freeze()
            return engine.thaw
        case _:
            raise ValueError(fault)
    return lambda: engine.start(live_restore=live_restore)


def _network(node: Node, fault: Fault) -> Callable[[], None]:
    cable = node.cable
    match fault.kind:
        case Kind.CUT:
            cable.cut()
            return cable.mend
        case Kind.DEAFEN:
            cable.impair(inward=_NOTHING)
        case Kind.MUTE:
            cable.impair(outward=_NOTHING)
        case Kind.LOSE:
            worse = Impairment(loss=fault.amount)
            cable.impair(inward=worse, outward=worse)
        case Kind.DELAY:
            worse = Impairment(delay_s=fault.amount)
            cable.impair(inward=worse, outward=worse)
        case Kind.REORDER:
            worse = Impairment(delay_s=fault.amount, jitter_s=fault.amount)
            cable.impair(inward=worse, outward=worse)
        case Kind.DOUBLE:
            worse = Impairment(duplicate=fault.amount)
            cable.impair(inward=worse, outward=worse)
        case _:
            raise ValueError(fault)
    return cable.impair
