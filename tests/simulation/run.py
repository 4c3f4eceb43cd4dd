"""One plan from its beginning to rest, and what came of it."""

import asyncio
import gc
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec
import structlog

from controlplane.services import starting
from tests.simulation import faults
from tests.simulation.checks.checker import Checker
from tests.simulation.checks.violation import Violation
from tests.simulation.clients import Clients
from tests.simulation.disk import faulty_sqlite
from tests.simulation.loop import VirtualLoop
from tests.simulation.plan import REQUEST, Act, Plan
from tests.simulation.world import World

__all__ = ["Outcome", "abandoning", "simulate"]

#: How often it is looked whether all has come to rest, in virtual seconds.
_LOOK_S: Final = 30.0
#: So that a few tasks are started as thousands are: some in one turn, more in the next.
_STARTS_IN_A_TURN: Final = 2
#: Where files live in memory, if the machine has such a place: a run writes many small ones, and no fsync counts.
_MEMORY: Final = Path("/dev/shm")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run. `invariant` "" if all held, else which was violated, and `text` how."""

    seed: int
    invariant: str = ""
    text: str = ""
    virtual_s: float = 0.0
    steps: int = 0
    commits: int = 0
    requests: int = 0
    answered: int = 0
    torn_writes: int = 0
    faults: dict[str, int] = {}
    #: (second, who, what); empty unless the run failed or the trace was asked for.
    trace: tuple[tuple[float, str, str], ...] = ()


def simulate(plan: Plan, *, keep_trace: bool = False) -> Outcome:
    """Run a plan. The same plan has the same outcome, trace included, in any process with the same PYTHONHASHSEED."""
    root = Path(tempfile.mkdtemp(prefix="homeport-simulation-", dir=_MEMORY if _MEMORY.is_dir() else None))
    loop = VirtualLoop()
    try:
        with _silent(), _alone(), abandoning(), faulty_sqlite(), _in_small_steps():
            try:
                return _run(loop, plan, root, keep_trace)
            finally:
                loop.abandon()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _run(loop: VirtualLoop, plan: Plan, root: Path, keep_trace: bool) -> Outcome:
    checker = Checker(lambda: loop.now, lambda: world.controlplane_clock.monotonic())
    world = World(loop, plan, root, checker)
    clients = Clients(world, world.chance("clients"), checker.request)
    failure: BaseException | None = None
    try:
        with _logging_into(world):
            loop.run_until_complete(_play(world, clients, checker))
    except Exception as error:  # noqa: BLE001 - whatever it is, it has a seed
        failure = error
    failure = _first(world.failure or failure)
    return Outcome(
        seed=plan.seed,
        invariant=_invariant(failure),
        text=str(failure) if failure is not None else "",
        virtual_s=round(loop.now, 3),
        steps=loop.steps,
        commits=checker.commits,
        requests=len(clients.ledger),
        answered=sum(ask.answer is not None for ask in clients.ledger),
        torn_writes=sum(disk.torn for disk in (world.controlplane_disk, *(m.disk for m in world.machines.values()))),
        faults=world.faults,
        trace=tuple(world.trace) if keep_trace or failure is not None else (),
    )


def _first(failure: BaseException | None) -> BaseException | None:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


def _invariant(failure: BaseException | None) -> str:
    if failure is None:
        return ""
    return failure.invariant if isinstance(failure, Violation) else f"no {type(failure).__name__} is left uncaught"


async def _play(world: World, clients: Clients, checker: Checker) -> None:
    """Let everything happen, then wait until all has come to rest. Raises Violation."""
    async with asyncio.TaskGroup() as group:
        playing = group.create_task(_acts(world, clients, checker))
        failing = group.create_task(world.failed.wait())
        await asyncio.wait([playing, failing], return_when=asyncio.FIRST_COMPLETED)
        playing.cancel()
        failing.cancel()


async def _acts(world: World, clients: Clients, checker: Checker) -> None:
    world.start_controlplane()
    for machine in world.plan.hosts:
        world.add_machine(machine)
    async with asyncio.TaskGroup() as requests:
        for act in world.plan.acts:
            await asyncio.sleep(act.at_s - world.loop.now)
            if act.kind == REQUEST:
                requests.create_task(_request(world, clients, act))
            else:
                faults.carry_out(world, act)
    faults.calm(world)
    world.say("world", "all is well from here on")
    await _rest(world, clients, checker)


async def _request(world: World, clients: Clients, act: Act) -> None:
    ask = await clients.carry_out(act)
    if ask is not None:
        world.say("client", f"{ask.operation}: {ask.refusal or ask.outcome.value}")


async def _rest(world: World, clients: Clients, checker: Checker) -> None:
    """Return once all has come to rest; raise what is still wrong when the time for that is over."""
    until = world.loop.now + world.plan.quiet_after_s
    while True:
        await asyncio.sleep(_LOOK_S)
        try:
            checker.rest(world, clients)
        except Violation:
            if world.loop.now >= until:
                raise
        else:
            return


# ---------------------------------------------------------------- quiet


def _in_small_steps() -> AbstractContextManager[Any]:
    return patch.object(starting, "MAX_STARTS", _STARTS_IN_A_TURN)


@contextmanager
def _alone() -> Iterator[None]:
    """Keep the collector's turns out, which depend on what ran before."""
    gc.disable()
    gc.freeze()  # what is there already needn't be looked at when this run's own is collected
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def abandoning() -> Iterator[None]:
    """Collect, at the end of the block, what kills have left behind, without a word of what it says to that."""
    yield
    said, warn = sys.unraisablehook, warnings.catch_warnings()
    sys.unraisablehook = lambda _: None
    with warn:
        warnings.simplefilter("ignore")
        gc.collect()
    sys.unraisablehook = said


@contextmanager
def _silent() -> Iterator[None]:
    """Let nobody log; what kills have left behind would, when it is collected."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def _logging_into(world: World) -> Iterator[None]:
    """Let the trace have what daemons log."""
    before = structlog.get_config()

    def into_trace(_: object, method: str, event: MutableMapping[str, Any]) -> str:
        text = event.pop("event")
        rest = " ".join(f"{name}={value}" for name, value in event.items() if name != "exc_info")
        world.say(method, f"{text} {rest}".rstrip())
        raise structlog.DropEvent

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, into_trace],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
