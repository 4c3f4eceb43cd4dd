"""`python -m tests.simulation`: runs seeds, and shrinks what fails.

\b
python -m tests.simulation 10000             seeds 0 to 9999, on all cores
python -m tests.simulation 500 --from 20000  seeds 20000 to 20499
python -m tests.simulation --seed 4711       one seed, with all that happened
python -m tests.simulation --plan plan.json  a plan that was kept
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import click
import msgspec

from tests.simulation.page import PAGE, mutations, rewritten
from tests.simulation.page import figures as tables
from tests.simulation.plan import Plan, generate
from tests.simulation.run import Outcome, simulate
from tests.simulation.shrink import shrunk

#: Failing seeds that are shrunk; the others are only named.
_MOST_SHRUNK: Final = 3
_CHUNK: Final = 10


@click.command(help=__doc__)
@click.argument("count", type=int, default=200)
@click.option("--from", "first", type=int, default=0, help="The first seed.")
@click.option("--seed", type=int, help="Run this seed only, and show all that happened.")
@click.option(
    "--plan", "plan_file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Run this plan."
)
@click.option("--jobs", type=int, default=os.cpu_count(), help="Processes.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Where plans that fail are kept.")
@click.option("--figures", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there, as JSON.")
@click.option("--page", is_flag=True, help="Write the figures into docs/reliability.md.")
@click.option("--shrink/--no-shrink", default=True, help="Make failing plans short.")
def main(
    count: int,
    first: int,
    seed: int | None,
    plan_file: Path | None,
    jobs: int,
    keep: Path | None,
    figures: Path | None,
    page: bool,
    shrink: bool,
) -> None:
    """See the module."""
    if plan_file is not None or seed is not None:
        plan = Plan.from_json(plan_file.read_bytes()) if plan_file is not None else generate(seed or 0)
        sys.exit(_show(plan, shrink=shrink and plan_file is None, keep=keep))
    began = time.monotonic()
    outcomes = list(_run_all(range(first, first + count), jobs))
    summary = {**_figures(outcomes, time.monotonic() - began), "jobs": jobs}
    click.echo(msgspec.json.format(msgspec.json.encode(summary)).decode())
    if figures is not None:
        figures.write_bytes(msgspec.json.format(msgspec.json.encode(summary)) + b"\n")
    if page:
        text = rewritten(PAGE.read_text(), "mutations", mutations())
        PAGE.write_text(rewritten(text, "simulator", tables(summary)))
    failed = [outcome for outcome in outcomes if outcome.invariant]
    for outcome in failed[:_MOST_SHRUNK] if shrink else ():
        _show(generate(outcome.seed), shrink=True, keep=keep)
    sys.exit(1 if failed else 0)


def _run_all(seeds: Sequence[int], jobs: int) -> Iterable[Outcome]:
    with ProcessPoolExecutor(jobs) as pool:
        for outcome in pool.map(_run_seed, seeds, chunksize=_CHUNK):
            if outcome.invariant:
                click.echo(f"seed {outcome.seed}: {outcome.text}", err=True)
            yield outcome


def _run_seed(seed: int) -> Outcome:
    # The trace of a failing seed is had by running it again; it would be long to hand over.
    return msgspec.structs.replace(simulate(generate(seed)), trace=())


def _figures(outcomes: Sequence[Outcome], took_s: float) -> dict[str, object]:
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.faults)
    return {
        "seeds": len(outcomes),
        "failed": [outcome.seed for outcome in outcomes if outcome.invariant],
        "invariants": dict(Counter(outcome.invariant for outcome in outcomes if outcome.invariant)),
        "virtual_hours": round(sum(outcome.virtual_s for outcome in outcomes) / 3600, 1),
        "steps": sum(outcome.steps for outcome in outcomes),
        "commits": sum(outcome.commits for outcome in outcomes),
        "requests": sum(outcome.requests for outcome in outcomes),
        "answered": sum(outcome.answered for outcome in outcomes),
        "faults": sum(faults.values()),
        "faults_by_kind": dict(sorted(faults.items())),
        "torn_writes": sum(outcome.torn_writes for outcome in outcomes),
        "seconds": round(took_s, 1),
    }


def _show(plan: Plan, *, shrink: bool, keep: Path | None) -> int:
    """Run a plan, make it short if it fails, and print what happened. Return the exit code."""
    outcome = simulate(plan, keep_trace=True)
    if outcome.invariant and shrink:
        plan, outcome = shrunk(plan, outcome, simulate)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{plan.seed}.json").write_bytes(plan.to_json())
    click.echo(f"seed {plan.seed}, {len(plan.acts)} acts on {len(plan.hosts)} hosts")
    for second, who, what in outcome.trace:
        click.echo(f"{second:10.3f}  {who:14}  {what}")
    click.echo(outcome.text or "every invariant held")
    return 1 if outcome.invariant else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of strings is part of what a seed means.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    main()
