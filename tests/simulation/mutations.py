"""Deliberate bugs, each of which the simulator must find within a stated number of seeds: who watches the watchman.

A mutation patches real code for as long as its block lasts. It counts as found by a seed whose run violates an
invariant with it, and none without it.

    python -m tests.simulation.mutations             which seed finds each
    python -m tests.simulation.mutations no-grace    one of them
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

import click
from msgspec.structs import replace

from agent import worker as agent_worker
from agent.task import absorb as agent_absorb
from agent.task import inspected as agent_inspected
from agent.task.messages import Inspected
from agent.task.model import TaskState
from agent.worker import Worker
from controlplane.fleet import report_intake, reports
from controlplane.fleet.assignments import Wishes
from controlplane.fleet.liveness import judge
from controlplane.scheduling import filters
from controlplane.services import look
from controlplane.services.deciding import presence as service_presence
from controlplane.services.deciding.draft import Draft
from controlplane.state.load import LoadBook
from controlplane.state.records import IdempotencyRecord, TaskRecord
from controlplane.state.state import State
from controlplane.store.batch import Batch
from homeport.protocol import Assignments, TaskReport
from homeport.status import DesiredStatus
from tests.simulation.plan import Plan, generate
from tests.simulation.run import simulate

__all__ = ["MUTATIONS", "Found", "Mutation", "search"]

#: What is patched: the owner of a name, the name, and what it is to be.
Patch = tuple[Any, str, Any]


@dataclass(frozen=True)
class Mutation:
    """A bug. `within`: the seeds, from 0 on, of which one must find it: some six times as many as it takes on average,
    since a change anywhere changes what each seed does.

    `needs`: kinds of faults without which it shows nothing, so that plans which have none of them needn't be tried.
    """

    name: str
    what: str
    within: int
    patches: tuple[Patch, ...]
    needs: tuple[str, ...] = ()

    def may_show(self, plan: Plan) -> bool:
        """Tell whether the plan has what the bug needs."""
        return not self.needs or any(act.kind in self.needs for act in plan.acts)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the bug inside the block."""
        with ExitStack() as stack:
            for owner, name, mutant in self.patches:
                stack.enter_context(patch.object(owner, name, mutant))
            yield


@dataclass(frozen=True)
class Found:
    """The seed that found a mutation, and the invariant that was violated."""

    seed: int
    invariant: str
    text: str


def search(mutation: Mutation, within: int | None = None) -> Found | None:
    """Return the first seed that finds a mutation; None if none of those that should does."""
    for seed in range(mutation.within if within is None else within):
        plan = generate(seed)
        if not mutation.may_show(plan):
            continue
        with mutation.applied():
            outcome = simulate(plan)
        if outcome.invariant and not simulate(plan).invariant:
            return Found(seed, outcome.invariant, outcome.text)
    return None


# ---------------------------------------------------------------- durability


async def _durable_at_once(self: State, revision: int | None = None) -> None:
    """Don't wait."""


_write = Batch._write


class _NoTransaction:
    """A connection on which each statement is its own transaction."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, sql: str, *arguments: Any) -> Any:
        return None if sql.startswith(("BEGIN", "COMMIT")) else self._connection.execute(sql, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def _write_without_transaction(self: Batch, connection: Any, last_event: int) -> None:
    _write(self, _NoTransaction(connection), last_event)  # type: ignore[arg-type]


_fill = State._fill


def _fill_without_tokens(self: State, records: Any) -> None:
    _fill(self, (record for record in records if not isinstance(record, IdempotencyRecord)))


# ---------------------------------------------------------------- assignments and reports


_increment = Wishes.increment


def _increment_without_removals(self: Wishes) -> Assignments | None:
    increment = _increment(self)
    return None if increment is None else replace(increment, remove=())


_apply_report = reports.apply_report


def _apply_any_report(context: Any, instance_id: Any, report: TaskReport) -> bool:
    task = context.state.tasks.get(report.task_id)
    if task is not None and report.seq <= task.reported_seq:
        report = replace(report, seq=task.reported_seq + 1)
    return _apply_report(context, instance_id, report)


def _apply_report_without_reason(context: Any, instance_id: Any, report: TaskReport) -> bool:
    return _apply_report(context, instance_id, replace(report, stopped_reason=None, stop_code=None))


_assign = Worker.assign


async def _assign_over_gaps(self: Worker, assignments: Assignments) -> None:
    """Take each increment for the next one."""
    follows = assignments.base is not None and self._revision >= 0
    await _assign(self, replace(assignments, base=self._revision) if follows else assignments)


# ---------------------------------------------------------------- the host's resources


_change = LoadBook.change


def _change_at_stop_request(self: LoadBook, old: TaskRecord | None, new: TaskRecord | None) -> None:
    """Count a task's resources as free as soon as it is to stop."""
    _change(self, *(None if task and task.desired is DesiredStatus.STOPPED else task for task in (old, new)))


def _no_port_is_taken(candidate: Any, demand: Any) -> None:
    """Refuse no host for its ports."""


# ---------------------------------------------------------------- services


_judge = judge


def _judge_without_grace(presence: Any, *, now: float, started_at: float, lost_after_s: float) -> Any:
    return _judge(presence, now=now, started_at=started_at, lost_after_s=0.0)


def _unsettled(self: Draft, task: TaskRecord) -> None:
    """Forget that the end was counted."""


def _stays_lost(self: Draft, task: TaskRecord) -> None:
    """Don't take a lost task back."""


def _isolated_stays_wanted(draft: Draft, task: TaskRecord) -> None:
    """Have a host begin, when it is back, what was replaced meanwhile."""


# ---------------------------------------------------------------- containers


_absorb_inspected = agent_inspected.absorb_inspected


def _absorb_without_inherited_codes(state: TaskState, fact: Inspected, now: float) -> TaskState:
    if fact.facts is not None and state.container(fact.container).inherited and fact.facts.exit_code is not None:
        fact = replace(fact, facts=replace(fact.facts, exit_code=0))
    return _absorb_inspected(state, fact, now)


def _restart_always(*_: object) -> tuple[bool, str]:
    return True, ""


def _nothing_to_resync(self: Worker) -> None:
    """Trust that every event has come."""


def _every_container(_: object) -> Mapping[str, str]:
    return {}


MUTATIONS: Final = (
    Mutation(
        "durable-at-once",
        "answers and assignments leave before they are durable",
        5,
        ((State, "durable", _durable_at_once),),
    ),
    Mutation(
        "acks-early",
        "reports are acknowledged before they are durable",
        20,
        ((State, "durable_revision", property(lambda state: state.revision)),),
    ),
    Mutation(
        "half-a-batch",
        "a batch of the journal is no transaction, so that a torn write leaves a part of it",
        150,
        ((Batch, "_write", _write_without_transaction),),
        needs=("torn_write",),
    ),
    Mutation(
        "tokens-forgotten",
        "a restarted control plane knows no client tokens",
        60,
        ((State, "_fill", _fill_without_tokens),),
        needs=("kill_controlplane", "torn_write", "disk_full"),
    ),
    Mutation(
        "removals-lost",
        "increments lack what is to be removed",
        5,
        ((Wishes, "increment", _increment_without_removals),),
    ),
    Mutation(
        "gaps-unseen",
        "an agent takes an increment although one before it was lost",
        900,
        ((Worker, "assign", _assign_over_gaps),),
        needs=("lose_sets",),
    ),
    Mutation(
        "reports-again",
        "a report is applied although it was before",
        120,
        ((report_intake, "apply_report", _apply_any_report),),
    ),
    Mutation(
        "reasons-lost",
        "why a task has stopped is dropped",
        5,
        ((report_intake, "apply_report", _apply_report_without_reason),),
    ),
    Mutation(
        "released-early",
        "a task's resources are free as soon as it is to stop",
        60,
        ((LoadBook, "change", _change_at_stop_request),),
    ),
    Mutation(
        "ports-ignored",
        "tasks are placed wherever their ports may be taken",
        60,
        ((filters, "ports", _no_port_is_taken),),
    ),
    Mutation("no-grace", "a silent host's tasks are replaced at once", 60, ((look, "judge", _judge_without_grace),)),
    Mutation(
        "ends-uncounted", "the end of a service's task is counted at each look", 5, ((Draft, "settle", _unsettled),)
    ),
    Mutation(
        "lost-for-good",
        "tasks of a host that was silent are never taken back",
        400,
        ((Draft, "take_back", _stays_lost),),
    ),
    Mutation(
        "isolated-stays-wanted",
        "what may run once is still wanted of a host that it was lost with",
        500,
        ((service_presence, "_give_up_isolated", _isolated_stays_wanted),),
    ),
    Mutation(
        "codes-lost",
        "an agent that adopts an ended container drops its exit code",
        200,
        ((agent_absorb, "absorb_inspected", _absorb_without_inherited_codes),),
        needs=("kill_agent", "torn_write"),
    ),
    Mutation(
        "always-restarted",
        "containers are started again without a restart policy",
        5,
        ((agent_inspected, "should_restart", _restart_always),),
    ),
    Mutation(
        "events-trusted",
        "lost events are never made up for",
        500,
        ((Worker, "_resync", _nothing_to_resync),),
        needs=("engine_lose_events",),
    ),
    Mutation(
        "all-are-ours",
        "an agent removes containers that it didn't make",
        5,
        ((agent_worker, "owner_labels", _every_container),),
    ),
)


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--within", type=int, help="Search so many seeds, rather than the stated number.")
def main(names: tuple[str, ...], within: int | None) -> None:
    """See the module."""
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    missed = 0
    for mutation in chosen:
        began = time.process_time()
        found = search(mutation, within)
        missed += found is None
        took_s = time.process_time() - began
        verdict = f"seed {found.seed}: {found.text}" if found else "NOT FOUND"
        click.echo(f"{mutation.name:20} {took_s:6.1f} s  {verdict}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation.mutations", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    main()
