"""The log store over Loki: the cases that all stores must pass, and what happens when Loki is away or refuses."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from controlplane.logs.api import LogEvent, LogStore, Shipment, StoredEvent, StoreUnavailable
from controlplane.logs.choice import open_log_store
from controlplane.logs.loki import pushing, slices
from controlplane.logs.loki.address import LokiAddress, parse_address
from controlplane.logs.loki.store import LokiLogStore
from homeport.clock import SystemClock
from homeport.errors import ConfigurationError
from homeport.protocol import LogKind
from tests.fakes.clock import ManualClock
from tests.fakes.fleet import eventually
from tests.fakes.loki import FakeLoki
from tests.unit.log_store_cases import T0, LogStoreCases, lines, make, put, scanned, texts

HOUR = 3_600_000
DAY = 24 * HOUR


class PushingAtOnce(LokiLogStore):
    """Has nothing wait."""

    async def append(
        self, group: str, stream: str, events: Sequence[LogEvent], *, ingested_at: int, shipment: Shipment | None = None
    ) -> None:
        await super().append(group, stream, events, ingested_at=ingested_at, shipment=shipment)
        await self.flush()


class OfItsOwnTime(PushingAtOnce):
    """Has an epoch that no other store has: a Loki that stays keeps what other tests have pushed."""

    async def start(self) -> None:
        await super().start()
        self._pusher.epoch = f"{int(self._pusher.epoch, 16) + random.SystemRandom().randrange(10**9):x}"


@pytest.fixture
def clock() -> ManualClock:
    # The cases' latest events are 28 hours behind T0.
    return ManualClock(T0 / 1000 + 30 * 3600)


@pytest.fixture
async def loki(clock: ManualClock) -> AsyncIterator[FakeLoki]:
    async with FakeLoki(clock) as loki:
        yield loki


class TestWaiting(LogStoreCases):
    """Nothing has been pushed yet."""

    @pytest.fixture
    async def store(self, tmp_path: Path, loki: FakeLoki, clock: ManualClock) -> AsyncIterator[LogStore]:
        async with LokiLogStore.open(tmp_path / "logs", parse_address(loki.url), clock) as store:
            yield store


class TestPushed(LogStoreCases):
    @pytest.fixture
    async def store(self, tmp_path: Path, loki: FakeLoki, clock: ManualClock) -> AsyncIterator[LogStore]:
        async with PushingAtOnce.open(tmp_path / "logs", parse_address(loki.url), clock) as store:
            yield store


class TestSmallPages(LogStoreCases):
    """Loki gives out two to four entries at a time."""

    @pytest.fixture
    async def store(
        self, tmp_path: Path, loki: FakeLoki, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[LogStore]:
        monkeypatch.setattr(slices, "_FIRST_PAGE", 2)
        monkeypatch.setattr(slices, "PAGE", 4)
        async with PushingAtOnce.open(tmp_path / "logs", parse_address(loki.url), clock) as store:
            yield store


class TestRunning(LogStoreCases):
    @pytest.fixture
    async def store(self, tmp_path: Path, loki: FakeLoki, clock: ManualClock) -> AsyncIterator[LogStore]:
        async with (
            LokiLogStore.open(tmp_path / "logs", parse_address(loki.url), clock) as store,
            asyncio.TaskGroup() as group,
        ):
            running = group.create_task(store.run())
            yield store
            running.cancel()


@pytest.mark.skipif("HOMEPORT_TEST_LOKI_URL" not in os.environ, reason="there is no real Loki")
class TestReal(LogStoreCases):
    """A real one, with `reject_old_samples: false` and `creation_grace_period: 100000h`: the cases have fixed times."""

    @pytest.fixture
    async def store(self, tmp_path: Path, clock: ManualClock) -> AsyncIterator[LogStore]:
        address = parse_address(os.environ["HOMEPORT_TEST_LOKI_URL"])
        async with OfItsOwnTime.open(tmp_path / "logs", address, clock) as store:
            yield store


# ---------------------------------------------------------------- pushing


@pytest.fixture
async def store(tmp_path: Path, loki: FakeLoki, clock: ManualClock) -> AsyncIterator[LokiLogStore]:
    async with LokiLogStore.open(tmp_path / "logs", parse_address(loki.url), clock) as store:
        await make(store, "g", "s")
        yield store


def now(clock: ManualClock) -> int:
    return int(clock.now() * 1000)


async def said(store: LokiLogStore) -> list[str]:
    return texts(await store.read("g", "s"))


async def test_loki_has_plain_lines_with_few_labels(store: LokiLogStore, loki: FakeLoki) -> None:
    await store.append("g", "s", [LogEvent(T0, "a", LogKind.STDERR), LogEvent(T0, "b")], ingested_at=T0 + 7)
    await store.flush()
    ((labels, entries),) = loki.streams.items()
    epoch = dict(labels)["homeport_group_id"].removesuffix("-1")
    assert dict(labels) == {
        "homeport_group": "g",
        "homeport_stream": "s",
        "homeport_group_id": f"{epoch}-1",
        "homeport_stream_id": f"{epoch}-1",
    }
    assert [(entry.ns - T0 * 1_000_000, entry.line) for entry in entries] == [(1, "a"), (2, "b")]
    assert dict(entries[0].metadata) == {
        "homeport_number": "1",
        "homeport_kind": "1",
        "homeport_ingested_at": str(T0 + 7),
    }


async def test_what_waits_is_pushed_together(store: LokiLogStore, loki: FakeLoki) -> None:
    await store.create_stream("g", "t", at=T0)
    for n in range(20):
        await put(store, "g", "st"[n % 2], str(n), at=T0 + n)
    await store.flush()
    assert loki.pushes == [20]
    assert loki.lines == [str(n) for n in range(20)]
    assert store.usage().used_bytes == 0


async def test_a_push_is_bounded(store: LokiLogStore, loki: FakeLoki) -> None:
    for n in range(10):
        await put(store, "g", "s", "x" * 400_000, at=T0 + n)
    await store.flush()
    assert len(loki.pushes) == 5
    assert await store.read("g", "s", max_bytes=1 << 30, limit=3) == (await store.read("g", "s", max_bytes=1 << 30))[:3]


async def test_while_loki_is_away_logs_wait_and_are_read_when_it_is_back(
    store: LokiLogStore, loki: FakeLoki, clock: ManualClock
) -> None:
    await put(store, "g", "s", "1")
    await store.flush()
    await loki.stop()
    await put(store, "g", "s", "2", at=T0 + 1)
    with pytest.raises(StoreUnavailable, match=r"Loki at http://127.0.0.1:\d+ can't be reached"):
        await store.flush()
    assert "can't be reached" in store.usage().problem
    assert "27 bytes wait in" in store.usage().problem
    with pytest.raises(StoreUnavailable, match="can't be reached"):
        await store.read("g", "s")
    await loki.start()
    assert await said(store) == ["1", "2"]
    await store.flush()
    assert store.usage().problem == ""
    assert (loki.lines, await said(store)) == (["1", "2"], ["1", "2"])


async def test_the_outbox_is_bounded(store: LokiLogStore, loki: FakeLoki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "OUTBOX_BYTES", 100)
    loki.push_answer = (429, "Ingestion rate limit exceeded for user fake")
    for n in range(4):
        await put(store, "g", "s", str(n), at=T0 + n)
    with pytest.raises(StoreUnavailable):
        await store.flush()
    with pytest.raises(StoreUnavailable, match=r"no logs are taken: .*HTTP 429: Ingestion rate limit.*108 bytes wait"):
        await put(store, "g", "s", "4")
    known = await store.stream("g", "s")
    assert (known.next_number, known.stored_bytes) == (5, 108)
    loki.push_answer = None
    await store.flush()
    await put(store, "g", "s", "4", at=T0 + 4)
    assert await said(store) == ["0", "1", "2", "3", "4"]
    assert store.usage().problem == ""


@pytest.mark.parametrize("status", [401, 404, 413, 429, 500, 503, 302])
async def test_what_may_be_taken_later_is_kept(store: LokiLogStore, loki: FakeLoki, status: int) -> None:
    loki.push_answer = (status, "why")
    await put(store, "g", "s", "1")
    with pytest.raises(StoreUnavailable, match=f"refuses with HTTP {status}: why"):
        await store.flush()
    loki.push_answer = (400, "stream 's' includes structured metadata, but this feature is disallowed")
    with pytest.raises(StoreUnavailable, match="structured metadata"):
        await store.flush()
    loki.push_answer = None
    await store.flush()
    assert loki.lines == ["1"]


async def test_a_push_without_an_answer_is_repeated_without_doubles(
    store: LokiLogStore, loki: FakeLoki, tmp_path: Path, clock: ManualClock
) -> None:
    loki.unanswered = 1
    await put(store, "g", "s", "1", "2")
    with pytest.raises(StoreUnavailable):
        await store.flush()
    assert loki.lines == ["1", "2"]
    # It is in Loki, and still waits.
    assert await said(store) == ["1", "2"]
    await store.close()
    async with LokiLogStore.open(tmp_path / "logs", parse_address(loki.url), clock) as again:
        assert again.usage().used_bytes == 54
        await put(again, "g", "s", "3", at=T0 + 5000)
        await again.flush()
        assert loki.lines == ["1", "2", "3"]
        assert await said(again) == ["1", "2", "3"]


async def test_it_runs_by_itself_and_comes_back(
    tmp_path: Path, loki: FakeLoki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "_FIRST_PAUSE_S", 0.01)
    address = parse_address(loki.url)
    await loki.stop()
    async with LokiLogStore.open(tmp_path / "logs", address) as store, asyncio.TaskGroup() as group:
        running = group.create_task(store.run())
        await make(store, "g", "s")
        loki.clock = SystemClock()
        recent = int(loki.clock.now() * 1000)
        await store.append("g", "s", [LogEvent(recent, "1")], ingested_at=recent)
        await eventually(lambda: store.usage().problem)
        await loki.start()
        await eventually(lambda: loki.lines == ["1"])
        await store.append("g", "s", [LogEvent(recent, "2")], ingested_at=recent)
        await eventually(lambda: loki.lines == ["1", "2"] and not store.usage().used_bytes)
        running.cancel()


# ---------------------------------------------------------------- what Loki never takes


async def test_lines_that_are_too_old_become_a_gap(store: LokiLogStore, loki: FakeLoki, clock: ManualClock) -> None:
    at = now(clock)
    await put(store, "g", "s", *map(str, range(1000)), at=at - 8 * DAY, step=100)
    await put(store, "g", "s", "1000", at=at - 6 * DAY)
    await store.flush()
    events = await store.read("g", "s")
    assert texts(events)[:-1] == ["1000"]
    assert (events[-1].at, events[-1].kind) == (at, LogKind.GAP)
    span = "from 2027-01-08T14:00:00.000Z to 2027-01-08T14:01:39.900Z"
    assert events[-1].text.startswith(f"Loki refused 1000 events {span}: entry for stream")
    assert "has timestamp too old" in events[-1].text
    assert store.usage() == replace(store.usage(), used_bytes=0, problem="")
    assert len(loki.pushes) < 20


async def test_lines_that_are_out_of_order_are_kept_all_the_same(
    store: LokiLogStore, loki: FakeLoki, clock: ManualClock
) -> None:
    at = now(clock)
    await put(store, "g", "s", "new", at=at)
    await store.flush()
    await put(store, "g", "s", *map(str, range(10)), at=at - 10 * HOUR, step=HOUR // 2)
    await store.flush()
    assert await said(store) == [*map(str, range(10)), "new"]
    late = {dict(labels).get("homeport_late") for labels in loki.streams}
    assert len(late) == 6
    assert texts([event for _, event in await scanned(store, "g")]) == [*map(str, range(10)), "new"]


async def test_lines_from_the_future_wait_until_loki_takes_them(
    store: LokiLogStore, loki: FakeLoki, clock: ManualClock
) -> None:
    at = now(clock)
    await put(store, "g", "s", "later", at=at + 2 * HOUR)
    await put(store, "g", "s", "now", at=at)
    await store.flush()
    assert loki.lines == ["now"]
    assert await said(store) == ["now", "later"]
    clock.time += 2 * 3600
    await store.flush()
    assert loki.lines == ["now", "later"]
    assert await said(store) == ["now", "later"]


async def test_a_clock_that_is_wrong_by_days_or_ages_holds_nothing_up(
    store: LokiLogStore, loki: FakeLoki, clock: ManualClock
) -> None:
    at = now(clock)
    times = (0, at - 20 * DAY, at + DAY, 2**62)
    for wrong in times:
        await store.append("g", "s", [LogEvent(wrong, "wrong"), LogEvent(at, "right")], ingested_at=at)
    assert len(await said(store)) == 8
    await store.flush()
    assert store.usage().used_bytes == 0
    assert "wrong" not in loki.lines
    events = await store.read("g", "s")
    assert texts(events)[:4] == ["right"] * 4
    assert [event.text.split()[5] for event in events[4:]] == [
        "1970-01-01T00:00:00.000Z",
        "2026-12-27T14:00:00.000Z",
        "2027-01-17T14:00:00.000Z",
        "4611686018427387904",
    ]
    assert all(event.text.endswith(": their times are wrong by far") for event in events[4:])
    assert texts(await store.read("g", "s", newest=True, limit=5)) == texts(events)[-5:]
    assert [event for _, event in await scanned(store, "g")] == list(events)
    assert len(loki.queries) < 40


# ---------------------------------------------------------------- reading


async def test_events_of_a_millisecond_keep_their_order_over_a_million(store: LokiLogStore, loki: FakeLoki) -> None:
    """Below the millisecond Loki sees only the last six digits of a number."""
    await put(store, "g", "s", *(str(n) for n in range(999_998, 1_000_003)), step=0)
    ((row, labels, events),) = store._pusher._due()
    moved = [StoredEvent(T0, 999_998 + n, T0, event.text) for n, event in enumerate(events)]
    await store._pusher._send([(labels, moved)])
    assert loki.lines[0] == "1000000"
    await store._pusher._settle([row], [])
    assert await said(store) == [str(n) for n in range(999_998, 1_000_003)]


async def test_long_histories_are_read_in_spans(store: LokiLogStore, loki: FakeLoki, clock: ManualClock) -> None:
    for day in range(40):
        clock.time += 86400
        await put(store, "g", "s", str(day), at=now(clock))
        await store.flush()
    assert await said(store) == [str(day) for day in range(40)]
    loki.queries.clear()
    assert texts(await store.read("g", "s", newest=True, limit=2)) == ["38", "39"]
    assert len(loki.queries) < 8
    assert [event.text for _, event in await scanned(store, "g", start=now(clock) - 2 * DAY)] == ["37", "38", "39"]


async def test_what_expires_is_hidden_and_forgotten(store: LokiLogStore, loki: FakeLoki, clock: ManualClock) -> None:
    await store.change_group("g", lambda group: replace(group, retention_days=1))
    shipment = Shipment(first=1, position="p", end=True)
    await store.append("g", "s", lines("old", at=now(clock)), ingested_at=now(clock), shipment=shipment)
    await store.flush()
    clock.time += 86400 + 1
    assert await said(store) == []
    assert await scanned(store, "g") == []
    await store.remove()
    assert await store.streams("g") == []
    assert store.group("g").stored_bytes == 0


# ---------------------------------------------------------------- deleting


async def test_what_is_deleted_is_deleted_in_loki(store: LokiLogStore, loki: FakeLoki) -> None:
    await store.create_stream("g", "t", at=T0)
    await make(store, "h", "s")
    for group, stream in (("g", "s"), ("g", "t"), ("h", "s")):
        await put(store, group, stream, f"{group}{stream}")
    await store.flush()
    await put(store, "g", "t", "waits")
    await store.delete_stream("g", "t")
    await store.remove()
    assert loki.lines == ["gs", "hs"]
    await store.delete_group("g")
    await store.remove()
    assert loki.lines == ["hs"]
    assert store.usage().used_bytes == 0
    await store.flush()
    assert loki.lines == ["hs"]


async def test_what_loki_does_not_delete_stays_hidden(store: LokiLogStore, loki: FakeLoki) -> None:
    loki.deletes = False
    await put(store, "g", "s", "1")
    await store.flush()
    await store.delete_stream("g", "s")
    await store.remove()
    await store.create_stream("g", "s", at=T0)
    await put(store, "g", "s", "2")
    await store.flush()
    assert loki.lines == ["1", "2"]
    assert await said(store) == ["2"]
    assert texts([event for _, event in await scanned(store, "g")]) == ["2"]


async def test_a_catalog_sees_nothing_of_another(store: LokiLogStore, loki: FakeLoki, tmp_path: Path) -> None:
    await put(store, "g", "s", "1")
    await store.flush()
    async with LokiLogStore.open(tmp_path / "other", parse_address(loki.url), ManualClock()) as other:
        await make(other, "g", "s")
        await put(other, "g", "s", "2")
        await other.flush()
        assert await said(other) == ["2"]
    assert await said(store) == ["1"]


# ---------------------------------------------------------------- the address


async def test_the_url_chooses_the_store(tmp_path: Path, loki: FakeLoki, clock: ManualClock) -> None:
    async with open_log_store(tmp_path, clock, url=None, limit_bytes=1 << 30) as here:
        await make(here, "here", "s")
    async with open_log_store(tmp_path, clock, url=loki.url, limit_bytes=1 << 30) as there:
        assert there.groups() == []
        await make(there, "there", "s")
    async with open_log_store(tmp_path, clock, url=None, limit_bytes=1 << 30) as here:
        assert [group.name for group in here.groups()] == ["here"]
    with pytest.raises(ConfigurationError, match="the URL of the logs begins with 'https'"):
        open_log_store(tmp_path, clock, url="https://loki", limit_bytes=1 << 30)


async def test_it_says_who_it_is(tmp_path: Path, loki: FakeLoki, clock: ManualClock) -> None:
    loki.tenant, loki.credentials = "team-a", "me:p@ss/word"
    url = loki.url.replace("://", "://me:p%40ss%2Fword@") + "/?tenant=team-a"
    async with LokiLogStore.open(tmp_path / "logs", parse_address(url), clock) as store:
        await make(store, "g", "s")
        await put(store, "g", "s", "1")
        await store.flush()
        assert await said(store) == ["1"]
        await store.delete_stream("g", "s")
        await store.remove()
    assert loki.lines == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("loki+http://loki", LokiAddress("http://loki:3100")),
        ("loki+https://loki:443/prefix/", LokiAddress("https://loki:443/prefix")),
        ("loki+http://[::1]:80?tenant=a", LokiAddress("http://[::1]:80", tenant="a")),
        ("loki+https://u:p%3A@h?ca=/a/b.pem", LokiAddress("https://h:3100", user="u", password="p:", ca="/a/b.pem")),
    ],
)
def test_an_address_is_read(url: str, expected: LokiAddress) -> None:
    assert parse_address(url) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://loki:3100", "begins with 'http'; loki\\+http://HOST:PORT"),
        ("loki+http://", "names no host"),
        ("loki+http://loki:99999", "can't be read"),
        ("loki+http://loki?orgid=1", "has \\?orgid; tenant=NAME"),
        ("loki+http://loki?tenant=a&tenant=b", "each once"),
        ("loki+http://loki?tenant", "can't be read"),
        ("loki+http://loki#a", "fragment"),
        ("loki+http://me:secret@loki:x", "can't be read"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        parse_address(url)
    assert "secret" not in str(caught.value)


async def test_authorities_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    address = parse_address(f"loki+https://loki?ca={tmp_path}/none.pem")
    with pytest.raises(ConfigurationError, match=r"none\.pem can't be used"):
        async with LokiLogStore.open(tmp_path / "logs", address):
            pass
