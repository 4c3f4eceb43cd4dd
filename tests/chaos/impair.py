"""What a bad network does to a frame: decided here, purely, from a `random.Random` that is handed in."""

from dataclasses import dataclass
from random import Random
from typing import Final

__all__ = ["CLEAN", "Impairment", "arrivals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """How one direction of a cable treats frames. Shares are of 1; the words are those of `tc netem`."""

    loss: float = 0.0
    delay_s: float = 0.0
    #: Delays are spread evenly over `delay_s` ± this, so that frames overtake one another.
    jitter_s: float = 0.0
    duplicate: float = 0.0


CLEAN: Final = Impairment()


def arrivals(impairment: Impairment, random: Random) -> list[float]:
    """Return after how many seconds a frame arrives: none for a lost one, two for a doubled one."""
    if impairment.loss and random.random() < impairment.loss:
        return []
    copies = 2 if impairment.duplicate and random.random() < impairment.duplicate else 1
    return [max(0.0, impairment.delay_s + impairment.jitter_s * random.uniform(-1, 1)) for _ in range(copies)]
