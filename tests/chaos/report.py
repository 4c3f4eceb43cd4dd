"""What a run tells: a JSON document, and the same as tables for people. Pure."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any, Final

from tests.chaos.recovery import Recovery
from tests.chaos.run import Result

__all__ = ["as_document", "as_markdown", "percentile", "rewritten"]

#: Where the tables of a run stand in docs/reliability.md.
_BEGIN: Final = "<!-- chaos: written by make chaos ARGS=--page -->"
_END: Final = "<!-- end of chaos -->"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def as_document(result: Result, *, seed: int, minutes: float, hosts: int, machine: dict[str, Any]) -> dict[str, Any]:
    """Return the report as a JSON document. Times are in seconds, since the begin of the run.

    `machine`: its `cores`, its `kernel`, and its `load_average` at the end, which the run's own load is part of.
    """
    return {
        "seed": seed,
        "minutes": minutes,
        "hosts": hosts,
        "machine": machine,
        "losses": result.losses,
        "load_s": round(result.load_s, 1),
        "rest_s": round(result.rest_s, 1),
        "tasks": result.tasks,
        "containers": result.containers,
        "at_most_one": {"containers": result.only},
        "polls": result.polls,
        "requests": {name: dict(counts) for name, counts in sorted(result.ledger.outcomes().items())},
        "attempts": sum(request.attempts for request in result.ledger.requests()),
        "refusals": dict(_refusals(result).most_common(20)),
        "faults": dict(sorted(Counter(each.fault.name for each in result.happened).items())),
        "recovery": _recovery(result),
        "recoveries": [
            {
                "fault": each.happened.fault.name,
                "node": each.happened.fault.node,
                "at_s": each.happened.fault.at_s,
                "alone": each.well_at is not None and _alone(each, result),
                **each.steps,
            }
            for each in result.recoveries
        ],
        "excused": dict(result.verdict.excused.most_common()),
        "exits": [{**asdict(each), "at": round(each.at - result.began_at, 1)} for each in result.exits],
        "plan": [asdict(fault) for fault in result.plan],
    }


def _refusals(result: Result) -> Counter[str]:
    return Counter(
        f"{request.operation}: {request.reason[:200]}" for request in result.ledger.requests() if request.reason
    )


def _recovery(result: Result) -> dict[str, dict[str, Any]]:
    """Return, per kind of fault and over all, what the recoveries took of which no other fault was in the way."""
    alone: defaultdict[str, list[float]] = defaultdict(list)
    never: Counter[str] = Counter()
    for each in result.recoveries:
        if each.seconds is None:
            never[each.happened.fault.name] += 1
        elif _alone(each, result):
            alone[each.happened.fault.name].append(each.seconds)
    every = [seconds for values in alone.values() for seconds in values]
    names = sorted({each.happened.fault.name for each in result.recoveries})
    return {
        name: {**_figures(values), "never": count}
        for name, values, count in [
            *((name, alone[name], never[name]) for name in names),
            ("all", every, never.total()),
        ]
    }


def _figures(values: Sequence[float]) -> dict[str, Any]:
    if not values:
        return {"measured": 0}
    return {
        "measured": len(values),
        "median_s": round(median(values), 1),
        "p99_s": round(percentile(values, 0.99), 1),
    }


def _alone(recovery: Recovery, result: Result) -> bool:
    mine = recovery.happened
    assert recovery.well_at is not None
    return not any(
        other is not mine and other.begun_at < recovery.well_at and mine.begun_at < other.ended_at
        for other in result.happened
    )


def rewritten(page: str, figures: str) -> str:
    """Return the page with these figures in place of those it has."""
    head, begin, rest = page.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    assert begin, f"the page has no place for figures: {_BEGIN}"
    assert end, f"the page's figures have no end: {_END}"
    return f"{head}{_BEGIN}\n\n{figures}\n{_END}{tail}"


def as_markdown(document: dict[str, Any]) -> str:
    """Return the report's tables."""
    return "\n".join([*_summary(document), "", *_requests(document), "", *_faults(document)]) + "\n"


def _summary(document: dict[str, Any]) -> Iterator[str]:
    total = sum(sum(counts.values()) for counts in document["requests"].values())
    faults = sum(document["faults"].values())
    yield (
        f"Seed {document['seed']}, {document['minutes']:g} minutes, {document['hosts']} hosts: {total:,} requests"
        f" ({document['attempts']:,} attempts), {document['tasks']:,} tasks, {faults} faults."
        f" At rest {document['rest_s']:g} s after the load. **Losses: {len(document['losses'])}.**"
    )
    one = document["at_most_one"]["containers"]
    yield f"Of the service that may have one task at a time {one} containers ran."
    machine = document["machine"]
    yield (
        f"On {machine['cores']} cores, Linux {machine['kernel']};"
        f" load average at the end, this run's own included: {machine['load_average']:g}."
    )
    if excused := sum(document["excused"].values()):
        reasons = "; ".join(f"{count} × {reason}" for reason, count in document["excused"].items())
        yield f"Excused: {excused} ({reasons})."


def _requests(document: dict[str, Any]) -> Iterator[str]:
    yield "| requests | accepted | refused | unanswered |"
    yield "| --- | --- | --- | --- |"
    for name, counts in document["requests"].items():
        cells = (counts.get(outcome, 0) for outcome in ("accepted", "refused", "unanswered"))
        yield f"| {_operation(name)} | {' | '.join(map(str, cells))} |"


def _operation(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _faults(document: dict[str, Any]) -> Iterator[str]:
    yield "| fault | times | recovery measured | median s | p99 s |"
    yield "| --- | --- | --- | --- | --- |"
    for name, figures in document["recovery"].items():
        times = document["faults"].get(name, sum(document["faults"].values()))
        shown = (figures.get(key, "") for key in ("measured", "median_s", "p99_s"))
        yield f"| {name} | {times} | {' | '.join(map(str, shown))} |"
