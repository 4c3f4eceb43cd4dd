"""Any history of the log store over Loki, outages and restarts included, reads as the store in memory does."""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from controlplane.logs.api import LogEvent, LogGroup, Shipment, StoreUnavailable
from controlplane.logs.loki.address import parse_address
from controlplane.logs.loki.store import LokiLogStore
from homeport.protocol import LogKind
from tests.fakes.clock import ManualClock
from tests.fakes.log_store import MemoryLogStore
from tests.fakes.loki import FakeLoki
from tests.unit.log_store_cases import scanned

T = TypeVar("T")

GROUP = "g"
STREAMS = ("a", "a/b", "Ω")

#: Stands for a text that Loki gets in two parts.
LARGE = "large"

streams = st.sampled_from(STREAMS)
#: Seconds before now: together, or so far apart that a stream of Loki takes only some of them.
ages = st.one_of(st.integers(0, 3), st.integers(0, 5 * 3600), st.integers(0, 86_400))
events = st.lists(st.tuples(ages, st.sampled_from(["", "line", LARGE]), st.sampled_from(LogKind)), max_size=6)


class LokiStoreMachine(RuleBasedStateMachine):
    """Does the same to both, and compares what they say."""

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory(prefix="homeport-loki-")
        self.clock = ManualClock()
        self.loki = FakeLoki(self.clock)
        self.run(self.loki.start())
        self.model = MemoryLogStore()
        self.open()
        for each in (self.store, self.model):
            self.run(each.create_group(LogGroup(name=GROUP, created_at=1)))
        for stream in STREAMS:
            self.create(stream)

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.run(self.loki.stop())
        self.runner.close()
        self.directory.cleanup()

    @property
    def now(self) -> int:
        return int(self.clock.now() * 1000)

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(doing)

    def open(self) -> None:
        self.stack = AsyncExitStack()
        opening = LokiLogStore.open(Path(self.directory.name), parse_address(self.loki.url), self.clock)
        self.store = self.run(self.stack.enter_async_context(opening))

    def create(self, stream: str) -> None:
        for each in (self.store, self.model):
            self.run(each.create_stream(GROUP, stream, at=self.now))

    # ------------------------------------------------------------ what happens

    @rule()
    def restart(self) -> None:
        self.run(self.stack.aclose())
        self.open()

    @rule()
    def push(self) -> None:
        self.run(self.store.flush())

    @rule(answer=st.sampled_from([(429, "too much"), (503, "away"), None]))
    def push_in_vain(self, answer: tuple[int, str] | None) -> None:
        """Loki refuses for now or, with None, takes it and doesn't say so."""
        self.loki.push_answer, self.loki.unanswered = answer, int(answer is None)
        with suppress(StoreUnavailable):
            self.run(self.store.flush())
        self.loki.push_answer, self.loki.unanswered = None, 0

    @rule(seconds=st.one_of(st.integers(1, 60), st.integers(0, 86_400)))
    def time_passes(self, seconds: int) -> None:
        # What waits longer than Loki takes it is for another test.
        self.run(self.store.flush())
        self.clock.time += seconds

    def said(self, said: list[tuple[int, str, LogKind]]) -> list[LogEvent]:
        return [
            LogEvent(self.now - age * 1000, "z" * 210_000 if text == LARGE else text, kind) for age, text, kind in said
        ]

    @rule(stream=streams, said=events)
    def append(self, stream: str, said: list[tuple[int, str, LogKind]]) -> None:
        for each in (self.store, self.model):
            self.run(each.append(GROUP, stream, self.said(said), ingested_at=self.now))

    @rule(stream=streams, said=events, back=st.integers(-2, 4), end=st.booleans())
    def ship(self, stream: str, said: list[tuple[int, str, LogKind]], back: int, end: bool) -> None:
        known = self.run(self.model.stream(GROUP, stream))
        shipment = Shipment(first=max(known.shipped_next - back, 1), position=str(self.now), end=end)
        for each in (self.store, self.model):
            self.run(each.append(GROUP, stream, self.said(said), ingested_at=self.now, shipment=shipment))

    @rule(stream=streams, tell_loki=st.booleans())
    def delete_stream(self, stream: str, tell_loki: bool) -> None:
        for each in (self.store, self.model):
            self.run(each.delete_stream(GROUP, stream))
        if tell_loki:
            self.run(self.store.remove())
        self.create(stream)

    # ------------------------------------------------------------ what is seen

    @invariant()
    def streams_are_alike(self) -> None:
        assert list(self.run(self.store.streams(GROUP))) == list(self.run(self.model.streams(GROUP)))
        assert self.store.group(GROUP) == self.model.group(GROUP)

    def bounds(self, start: int | None, end: int | None) -> dict[str, Any]:
        return {
            "start": None if start is None else self.now - start * 1000,
            "end": None if end is None else self.now - end * 1000,
        }

    @rule(stream=streams, start=st.none() | ages, end=st.none() | ages, limit=st.integers(1, 10), newest=st.booleans())
    def read(self, stream: str, start: int | None, end: int | None, limit: int, newest: bool) -> None:
        bounds = self.bounds(start, end)
        found, expected = (
            self.run(each.read(GROUP, stream, **bounds, limit=limit, newest=newest))
            for each in (self.store, self.model)
        )
        assert list(found) == list(expected)

    @rule(start=st.none() | ages, end=st.none() | ages, chosen=st.none() | st.lists(streams))
    def scan(self, start: int | None, end: int | None, chosen: list[str] | None) -> None:
        bounds = self.bounds(start, end)
        found, expected = (
            self.run(scanned(each, GROUP, streams=chosen, **bounds)) for each in (self.store, self.model)
        )
        assert found == expected


TestLokiStore = LokiStoreMachine.TestCase
TestLokiStore.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
