"""How long to wait before the next try when tasks keep on failing.

ECS restarts at first without delay, then with growing ones. So here: a service of D tasks may fail three rounds of D
at once; then each round doubles the delay, from 1 s up to `max_s`. A new revision has a record of its own, a clean one.
"""

from typing import Final

__all__ = ["delay_s"]

#: Rounds in which all of a service's tasks may fail before the next is delayed.
_FREE_ROUNDS: Final = 3


def delay_s(failures: int, desired: int, max_s: float) -> float:
    """Return the seconds to wait after `failures` in a row of a service of `desired` tasks; 0.0 for none."""
    if failures <= 0:
        return 0.0
    rounds = (failures - 1) // max(1, desired)
    if rounds < _FREE_ROUNDS:
        return 0.0
    # Beyond 2**30 the power itself would become a burden.
    return min(max_s, 2.0 ** min(rounds - _FREE_ROUNDS, 30))
