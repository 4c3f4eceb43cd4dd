"""Any history of the log store, power cuts at any step included, reads as the store in memory does."""

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from controlplane.logs.api import LogEvent, LogGroup, LogStream, Shipment, StoredEvent, StreamMissing
from controlplane.logs.space import Disk
from controlplane.logs.store import SegmentLogStore
from homeport.protocol import LogKind
from tests.fakes.clock import ManualClock
from tests.fakes.log_store import MemoryLogStore
from tests.fakes.segment_files import FailingFiles, PowerLost
from tests.unit.log_store_cases import scanned

T = TypeVar("T")

DAY_S = 86_400
#: Group -> days its events are kept.
GROUPS: dict[str, int | None] = {"/kept": None, "short/..": 1}
STREAMS = ("a", "a/b", "Ω")

groups = st.sampled_from(sorted(GROUPS))
streams = st.sampled_from(STREAMS)
#: Stands for a text of which two fill a block.
LARGE = "large"
#: Seconds before now: together, apart by more than a block may span, apart by more than a segment may.
ages = st.one_of(st.integers(0, 5), st.integers(0, 3 * 3600), st.integers(0, 3 * DAY_S))
events = st.lists(
    st.tuples(ages, st.sampled_from(["", "é", "line", LARGE]), st.sampled_from(LogKind)), min_size=0, max_size=6
)
bounds = st.none() | ages
choices = st.none() | st.lists(streams)
twice = st.integers(1, 2)


class LogStoreMachine(RuleBasedStateMachine):
    """Does the same to both, and compares what they say."""

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        # In memory if possible: a history is a hundred syncs, and what survives is for `files` to say.
        shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.directory = tempfile.TemporaryDirectory(prefix="homeport-logs-", dir=shared)
        self.clock = ManualClock()
        self.model = MemoryLogStore()
        self.open()
        for name, days in GROUPS.items():
            group = LogGroup(name=name, created_at=self.now, retention_days=days)
            self.run(self.store.create_group(group))
            self.run(self.model.create_group(group))
            for stream in STREAMS:
                self.run(self.create(name, stream))

    def teardown(self) -> None:
        self.close()
        self.runner.close()
        self.directory.cleanup()

    # ------------------------------------------------------------ the store's life

    @property
    def now(self) -> int:
        return int(self.clock.now() * 1000)

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(doing)

    def open(self) -> None:
        root = Path(self.directory.name) / "logs"
        self.files = FailingFiles(root / "segments")
        self.stack = AsyncExitStack()
        opening = SegmentLogStore.open(
            root, self.clock, files=self.files, measure=lambda _: Disk(total=1 << 40, free=1 << 39)
        )
        self.store = self.run(self.stack.enter_async_context(opening))
        assert self.store.usage().problem == ""

    def close(self) -> None:
        self.run(self.stack.aclose())

    async def create(self, group: str, stream: str) -> None:
        await self.store.create_stream(group, stream, at=self.now)
        await self.model.create_stream(group, stream, at=self.now)

    @rule()
    def restart(self) -> None:
        self.close()
        self.open()

    @rule(steps=st.integers(0, 8), part=st.floats(0, 1), doing=st.sampled_from(["seal", "tend"]))
    def lose_power(self, steps: int, part: float, doing: str) -> None:
        """While sealing or removing, after some steps of it."""
        self.files.steps_left = steps
        if doing == "tend":
            self.clock.time += 61
        with suppress(PowerLost):
            self.run(getattr(self.store, doing)())
        self.close()
        self.files.power_cut(part)
        self.open()
        self.forget_streams()

    @rule()
    def seal(self) -> None:
        self.run(self.store.seal())

    @rule(seconds=st.one_of(st.integers(1, 700), st.integers(0, 2 * DAY_S)))
    def time_passes(self, seconds: int) -> None:
        self.clock.time += seconds
        self.run(self.store.tend())
        self.forget_streams()

    def forget_streams(self) -> None:
        """Retention may take a container's stream of which nothing is left; whoever needs it makes it again."""
        for group in GROUPS:
            for name in STREAMS:
                try:
                    self.run(self.store.stream(group, name))
                except StreamMissing:
                    known = self.run(self.model.stream(group, name))
                    cutoff = self.cutoff(group)
                    assert cutoff is not None
                    assert known.ended or known.shipped_next > 1 or known.position
                    assert self.run(self.model.read(group, name, start=cutoff)) == []
                    assert (known.last_ingested_at or 0) < cutoff
                    self.run(self.model.delete_stream(group, name))
                    self.run(self.create(group, name))

    # ------------------------------------------------------------ writing

    def said(self, said: list[tuple[int, str, LogKind]]) -> list[LogEvent]:
        return [
            LogEvent(self.now - age * 1000, "x" * 130_000 if text == LARGE else text, kind) for age, text, kind in said
        ]

    @rule(group=groups, stream=streams, said=events)
    def append(self, group: str, stream: str, said: list[tuple[int, str, LogKind]]) -> None:
        given = self.said(said)
        for each in (self.store, self.model):
            self.run(each.append(group, stream, given, ingested_at=self.now))

    @rule(
        group=groups, stream=streams, said=events, back=st.integers(-2, 4), end=st.booleans(), times=st.integers(1, 2)
    )
    def ship(
        self, group: str, stream: str, said: list[tuple[int, str, LogKind]], back: int, end: bool, times: int
    ) -> None:
        known = self.run(self.model.stream(group, stream))
        shipment = Shipment(first=max(known.shipped_next - back, 1), position=str(self.now), end=end)
        given = self.said(said)
        for each in (self.store, self.model):
            for _ in range(times):
                self.run(each.append(group, stream, given, ingested_at=self.now, shipment=shipment))

    @rule(group=groups, stream=streams)
    def delete_stream(self, group: str, stream: str) -> None:
        for each in (self.store, self.model):
            self.run(each.delete_stream(group, stream))
        self.run(self.create(group, stream))

    @rule(group=groups)
    def delete_group(self, group: str) -> None:
        made = self.model.group(group)
        for each in (self.store, self.model):
            self.run(each.delete_group(group))
            self.run(each.create_group(replace(made, stored_bytes=0)))
        for stream in STREAMS:
            self.run(self.create(group, stream))

    # ------------------------------------------------------------ reading

    def cutoff(self, group: str) -> int | None:
        days = GROUPS[group]
        return None if days is None else self.now - days * DAY_S * 1000

    def start(self, group: str, age: int | None) -> int | None:
        found = [
            each for each in (self.cutoff(group), None if age is None else self.now - age * 1000) if each is not None
        ]
        return max(found, default=None)

    @rule(
        group=groups,
        stream=streams,
        start=bounds,
        end=bounds,
        after=bounds,
        before=bounds,
        number=st.integers(0, 20),
        limit=st.integers(1, 10),
        max_bytes=st.sampled_from([1, 100, 100_000, 1 << 30]),
        newest=st.booleans(),
    )
    def read(
        self,
        group: str,
        stream: str,
        start: int | None,
        end: int | None,
        after: int | None,
        before: int | None,
        number: int,
        limit: int,
        max_bytes: int,
        newest: bool,
    ) -> None:
        def read(store: MemoryLogStore | SegmentLogStore, start: int | None) -> list[StoredEvent]:
            found = store.read(
                group,
                stream,
                start=start,
                end=None if end is None else self.now - end * 1000,
                after=None if after is None else (self.now - after * 1000, number),
                before=None if before is None else (self.now - before * 1000, number),
                limit=limit,
                max_bytes=max_bytes,
                newest=newest,
            )
            return list(self.run(found))

        given = None if start is None else self.now - start * 1000
        assert read(self.store, given) == read(self.model, self.start(group, start))

    @rule(
        group=groups,
        start=bounds,
        end=bounds,
        after=bounds,
        chosen=st.none() | st.lists(streams),
        number=st.integers(0, 9),
    )
    def scan(
        self, group: str, start: int | None, end: int | None, after: int | None, chosen: list[str] | None, number: int
    ) -> None:
        def scan(store: MemoryLogStore | SegmentLogStore, start: int | None) -> list[tuple[str, StoredEvent]]:
            until = None if end is None else self.now - end * 1000
            behind = None if after is None else (self.now - after * 1000, "a/b", number)
            return self.run(scanned(store, group, streams=chosen, start=start, end=until, after=behind))

        given = None if start is None else self.now - start * 1000
        assert scan(self.store, given) == scan(self.model, self.start(group, start))

    @invariant()
    def all_is_there(self) -> None:
        if not hasattr(self, "store"):
            return
        for group in GROUPS:
            for name in STREAMS:
                start = self.cutoff(group)
                found = self.run(self.store.read(group, name, max_bytes=1 << 30))
                assert found == self.run(self.model.read(group, name, start=start, max_bytes=1 << 30))
                self.same_stream(self.run(self.store.stream(group, name)), self.run(self.model.stream(group, name)))
            if GROUPS[group] is None:
                assert self.store.group(group) == self.model.group(group)

    def same_stream(self, found: LogStream, wanted: LogStream) -> None:
        if GROUPS[found.group] is not None:  # what has expired counts until it is removed
            unlike: dict[str, Any] = {"first_at": None, "last_at": None, "stored_bytes": 0}
            found, wanted = replace(found, **unlike), replace(wanted, **unlike)
        assert found == wanted


TestLogStore = LogStoreMachine.TestCase
TestLogStore.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
