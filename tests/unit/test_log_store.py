"""The log stores against the cases that all of them must pass: in memory, and on segments with tails kept or sealed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from controlplane.logs.api import LogEvent, LogStore, Shipment
from controlplane.logs.store import SegmentLogStore
from tests.fakes.log_store import MemoryLogStore
from tests.unit.log_store_cases import LogStoreCases


class SealingAtOnce(SegmentLogStore):
    """Makes a block of every batch."""

    async def append(
        self, group: str, stream: str, events: Sequence[LogEvent], *, ingested_at: int, shipment: Shipment | None = None
    ) -> None:
        await super().append(group, stream, events, ingested_at=ingested_at, shipment=shipment)
        await self.seal()


class TestMemory(LogStoreCases):
    @pytest.fixture
    def store(self) -> LogStore:
        return MemoryLogStore()


class TestTails(LogStoreCases):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[LogStore]:
        async with SegmentLogStore.open(tmp_path / "logs") as store:
            yield store


class TestBlocks(LogStoreCases):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[LogStore]:
        async with SealingAtOnce.open(tmp_path / "logs") as store:
            yield store


class TestRunning(LogStoreCases):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[LogStore]:
        async with SegmentLogStore.open(tmp_path / "logs") as store, asyncio.TaskGroup() as group:
            running = group.create_task(store.run())
            yield store
            running.cancel()
