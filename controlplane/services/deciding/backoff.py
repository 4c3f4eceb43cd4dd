"""How long to wait before the next try when tasks keep on failing.

ECS restarts at first without delay, then with growing ones. So here: a service of D tasks may fail three rounds of D
at once; then each round doubles the delay, from 1 s up to `max_s`. A new revision has a record of its own, a clean one.
"""

from typing import Final

from controlplane.state.service_records import DeploymentRecord, TaskSetRecord

__all__ = ["delay_s", "next_try_at"]

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


def next_try_at(owner: DeploymentRecord | TaskSetRecord, now: float) -> float | None:
    """Return the moment before which the owner's failures forbid another start, if it lies ahead of `now`; else None.

    A last failure that lies ahead itself forbids nothing: the clock was set back since.
    """
    if owner.retry_at is None or owner.failed_at is None or not owner.failed_at <= now < owner.retry_at:
        return None
    return owner.retry_at
