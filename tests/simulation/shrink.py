"""A failing plan made short: what can be left out is, as long as the same invariant still breaks."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from tests.simulation.plan import Plan
from tests.simulation.run import Outcome

__all__ = ["shrunk"]

T = TypeVar("T")

#: Runs that shrinking may take; each is a fraction of a second.
_RUNS: Final = 300


def shrunk(plan: Plan, outcome: Outcome, run: Callable[[Plan], Outcome]) -> tuple[Plan, Outcome]:
    """Return the shortest plan that was found to violate the same invariant, and what came of it.

    Delta debugging: halves, quarters and so on down to single acts are left out; then hosts.
    """
    left = _RUNS
    best = plan, outcome

    def fails(candidate: Plan) -> bool:
        nonlocal left, best
        left -= 1
        tried = run(candidate)
        if tried.invariant != outcome.invariant:
            return False
        best = candidate, tried
        return True

    def out_of_time() -> bool:
        return left <= 0

    acts = _minimal(plan.acts, lambda acts: fails(replace(plan, acts=tuple(acts))), out_of_time)
    plan = replace(plan, acts=tuple(acts))
    _minimal(plan.hosts, lambda hosts: bool(hosts) and fails(replace(plan, hosts=tuple(hosts))), out_of_time)
    return best


def _minimal(parts: Sequence[T], fails: Callable[[list[T]], bool], out_of_time: Callable[[], bool]) -> list[T]:
    """Return what is left of `parts` when none of them can be left out any more."""
    kept = list(parts)
    size = max(1, len(kept) // 2)
    while kept and not out_of_time():
        at, shorter = 0, False
        while at < len(kept) and not out_of_time():
            candidate = kept[:at] + kept[at + size :]
            if fails(candidate):
                kept, shorter = candidate, True
            else:
                at += size
        if size == 1 and not shorter:
            break
        size = max(1, size // 2)
    return kept
