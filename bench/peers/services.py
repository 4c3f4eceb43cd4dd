"""One life of a service of 20 on each side: started, a container killed, scaled up and down, rolled, removed.

Every figure is in seconds from the request, or from the kill, to the Engine's event that makes it true.
"""

import time
from collections.abc import Callable
from typing import Final

from bench.peers.sides import Bare, Homeport, Side, Swarm, kill
from tests.e2e.harness import eventually

__all__ = ["COUNT", "Figures", "bare_life", "best_concurrency", "homeport_life", "swarm_life"]

#: What was measured -> whose it is -> the round's number -> seconds.
Figures = dict[str, dict[str, dict[int, float]]]
#: Is told what was measured, whose it is, and the seconds.
Note = Callable[[str, str, float], None]

COUNT: Final = 20
DOUBLE: Final = 40
#: Requests at once that the bare Engine is tried with.
_TRIED: Final = (4, 8, 16)


def best_concurrency(bare: Bare) -> dict[int, float]:
    """Try each twice; return the better seconds of each, and leave `bare` with the best."""
    took: dict[int, float] = {}
    for at_a_time in _TRIED * 2:
        bare.at_a_time = at_a_time
        seconds = _until(bare, lambda: bare.create(COUNT), _count(COUNT))
        took[at_a_time] = min(seconds, took.get(at_a_time, seconds))
        bare.remove()
        bare.running.until(_count(0))
    bare.at_a_time = min(took, key=took.__getitem__)
    return took


def bare_life(side: Bare, note: Note) -> None:
    """The floor: somebody who knows what is wanted and asks the Engine for it at once."""
    _grow(side, "engine", note)

    before = kill(side)
    began = time.time()
    side.running.until(lambda ids: ids < before)
    side.replace(*(before - side.running.now()))
    note("recover_one", "engine", side.running.until(_count(COUNT)) - began)

    _scale(side, "engine", note)
    note("roll_20", "engine", _until(side, side.roll, _all_new(side)))
    _end(side)


def homeport_life(side: Homeport, note: Note) -> None:
    """Homeport's service with its defaults, then one roll without the 5 s in which the new tasks are looked at."""
    _grow(side, "homeport", note)
    _settle(side)
    note("recover_one", "homeport", _recovery(side))
    _settle(side)
    _scale(side, "homeport", note)
    _settle(side)
    _roll(side, side.roll, "homeport", note)
    side.without_looking()
    _roll(side, side.roll, "homeport_at_once", note)
    _end(side)


def swarm_life(side: Swarm, note: Note, *, slowly: bool) -> None:
    """Swarm's service with its defaults, then with what makes it fast: at once, new ones first, no restart delay.

    `slowly`: also roll with its defaults, one by one, which takes as long as everything else together.
    """
    _grow(side, "swarm", note)
    note("recover_one", "swarm", _recovery(side))
    _scale(side, "swarm", note)
    if slowly:
        _roll(side, side.roll, "swarm", note)
    _roll(side, side.roll_at_once, "swarm_at_once", note)
    note("recover_one", "swarm_no_delay", _recovery(side))
    _end(side)


def _grow(side: Side, whose: str, note: Note) -> None:
    note("start_20", whose, _until(side, lambda: side.create(COUNT), _count(COUNT)))


def _scale(side: Side, whose: str, note: Note) -> None:
    note("scale_20_to_40", whose, _until(side, lambda: side.scale(DOUBLE), _count(DOUBLE)))
    _settle(side)
    note("scale_40_to_20", whose, _until(side, lambda: side.scale(COUNT), _count(COUNT)))


def _roll(side: Side, act: Callable[[], None], whose: str, note: Note) -> None:
    """Note until only new containers run, and until the side says that it is done."""
    began = time.time()
    note("roll_20", whose, _until(side, act, _all_new(side)))
    _settle(side)
    note("roll_20_said_done", whose, time.time() - began)


def _recovery(side: Side) -> float:
    """Seconds from the kill of one container until another has started."""
    before = kill(side)
    began = time.time()
    return side.running.until(lambda ids: not ids <= before and len(ids) == len(before)) - began


def _until(side: Side, act: Callable[[], None], done: Callable[[set[str]], bool]) -> float:
    began = time.time()
    act()
    return side.running.until(done) - began


def _count(count: int) -> Callable[[set[str]], bool]:
    return lambda ids: len(ids) == count


def _all_new(side: Side) -> Callable[[set[str]], bool]:
    """Only containers that don't run now, and as many."""
    old = side.running.now()
    return lambda ids: len(ids) == len(old) and not ids & old


def _settle(side: Side) -> None:
    eventually(side.settled, within_s=120, every_s=0.2)


def _end(side: Side) -> None:
    side.remove()
    side.running.until(_count(0))
