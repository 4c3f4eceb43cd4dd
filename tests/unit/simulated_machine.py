"""A simulated machine on virtual time, with an Engine and agents' processes, for tests of the Engine alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

import pytest

from agent.engine.api import EngineEvent
from homeport.ids import InstanceId
from homeport.spec import HealthCheck
from tests.engine.conftest import Lab
from tests.simulation.engine import SimulatedEngine
from tests.simulation.ledger import ContainerLedgerEntry
from tests.simulation.loop import VirtualLoop
from tests.simulation.process import MachineClock, Process

__all__ = ["CHECK", "DEADLINE_S", "Machine", "machine", "present", "started", "watched"]

T = TypeVar("T")

Main = Callable[[Lab], Awaitable[T]]
DEADLINE_S = 3600.0
CHECK = HealthCheck(command=("CMD", "true"), interval_s=5, retries=3, start_period_s=30)


@dataclass
class Machine:
    """A machine with an Engine, and agents' processes on it."""

    loop: VirtualLoop
    seed: int = 1
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = MachineClock(self.loop)
        self.engine = SimulatedEngine("host", self.clock, Random(self.seed), trace=self.note)

    def note(self, text: str) -> None:
        self.trace.append(f"{self.loop.now:.6f} {text}")

    def process(self) -> Process:
        return Process(self.loop, "agent", self.clock)

    def run(self, main: Main[T], image: str = "steady") -> T:
        """Run `main` as a process to its end."""

        async def bounded() -> T:
            async with asyncio.timeout(DEADLINE_S):
                return await main(self.lab(image))

        result: T = self.loop.run_until_complete(self.process().spawn(bounded()))
        return result

    def lab(self, image: str = "steady") -> Lab:
        return Lab(self.engine.link(), image, owner=InstanceId("0" * 32))

    def wait(self, seconds: float) -> None:
        """Let time pass with no agent there."""
        self.loop.run_until_complete(self.process().spawn(asyncio.sleep(seconds)))

    @property
    def entry(self) -> ContainerLedgerEntry:
        (entry,) = self.engine.ledger
        return entry

    @property
    def ends(self) -> list[tuple[int, str]]:
        return [(end.exit_code, end.why) for end in self.entry.ends]


@pytest.fixture
def machine() -> Iterator[Machine]:
    loop = VirtualLoop()
    yield Machine(loop)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.abandon()


async def present(lab: Lab, image: str | None = None) -> None:
    """See to it that an image is there."""
    if await lab.engine.image(image or lab.image) is None:
        await lab.engine.pull(image or lab.image)


async def watched(lab: Lab) -> AsyncIterator[EngineEvent]:
    """Open the stream of events."""
    events = lab.engine.events(lab.labels)
    assert (await anext(events)).kind == "resync"
    return events


async def started(lab: Lab, **members: Any) -> str:
    await present(lab)
    return await lab.start(**members)
