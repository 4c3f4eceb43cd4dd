"""What every log store does alike. A test module derives from LogStoreCases and gives the fixture `store`, empty."""

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from controlplane.logs.api import (
    GroupExists,
    GroupMissing,
    LogEvent,
    LogGroup,
    LogStore,
    LogStream,
    ScanKey,
    Shipment,
    StoredEvent,
    StreamExists,
    StreamMissing,
)
from homeport.protocol import LogKind

__all__ = ["T0", "LogStoreCases", "lines", "make", "put", "scanned", "texts"]

#: A moment that the events of these cases are near to.
T0 = 1_800_000_000_000


def lines(*texts: str, at: int = T0, step: int = 1000) -> list[LogEvent]:
    return [LogEvent(at + n * step, text) for n, text in enumerate(texts)]


async def make(store: LogStore, group: str, *streams: str) -> None:
    await store.create_group(LogGroup(name=group, created_at=T0))
    for stream in streams:
        await store.create_stream(group, stream, at=T0)


async def put(store: LogStore, group: str, stream: str, *texts: str, at: int = T0, step: int = 1000) -> None:
    await store.append(group, stream, lines(*texts, at=at, step=step), ingested_at=T0)


async def scanned(
    store: LogStore,
    group: str,
    *,
    streams: Sequence[str] | None = None,
    prefix: str = "",
    start: int | None = None,
    end: int | None = None,
    after: ScanKey | None = None,
) -> list[tuple[str, StoredEvent]]:
    chunks = store.scan(group, streams=streams, prefix=prefix, start=start, end=end, after=after)
    return [pair async for chunk in chunks for pair in chunk]


def texts(events: Sequence[StoredEvent]) -> list[str]:
    return [event.text for event in events]


class LogStoreCases:
    """See the module."""

    # ------------------------------------------------------------ groups

    async def test_groups_are_kept_by_name(self, store: LogStore) -> None:
        first = LogGroup(name="/b/Ä/€", created_at=1, retention_days=3, tags={"a": "b"}, deletion_protection=True)
        second = LogGroup(name="/a", created_at=2, log_class="INFREQUENT_ACCESS")
        await store.create_group(first)
        await store.create_group(second)
        assert list(store.groups()) == [second, first]
        assert store.group("/b/Ä/€") == first
        with pytest.raises(GroupExists):
            await store.create_group(first)
        with pytest.raises(GroupMissing):
            store.group("/c")

    async def test_a_group_is_changed_by_what_it_is_then(self, store: LogStore) -> None:
        await make(store, "g", "s")
        await put(store, "g", "s", "x")
        await asyncio.gather(
            store.change_group("g", lambda group: replace(group, retention_days=5)),
            store.change_group("g", lambda group: replace(group, tags={**group.tags, "a": "1"})),
            store.change_group("g", lambda group: replace(group, tags={**group.tags, "b": "2"})),
        )
        group = store.group("g")
        assert (group.retention_days, group.tags, group.stored_bytes) == (5, {"a": "1", "b": "2"}, 27)
        with pytest.raises(GroupMissing):
            await store.change_group("nowhere", lambda group: group)

        def refuse(group: LogGroup) -> LogGroup:
            raise LookupError(group.name)

        with pytest.raises(LookupError, match="g"):
            await store.change_group("g", refuse)
        assert store.group("g") == group

    async def test_a_group_goes_with_its_streams(self, store: LogStore) -> None:
        await make(store, "g", "s")
        await make(store, "other", "s")
        await put(store, "g", "s", "x")
        await put(store, "other", "s", "y")
        await store.delete_group("g")
        with pytest.raises(GroupMissing):
            await store.stream("g", "s")
        with pytest.raises(GroupMissing):
            await store.delete_group("g")
        with pytest.raises(GroupMissing):
            await scanned(store, "g")
        await make(store, "g", "s")
        assert await store.read("g", "s") == []
        assert (await store.stream("g", "s")).next_number == 1
        assert texts(await store.read("other", "s")) == ["y"]

    # ------------------------------------------------------------ streams

    async def test_streams_have_their_own_names_and_ends(self, store: LogStore) -> None:
        await make(store, "g", "../a/b c/Ω", "s")
        with pytest.raises(StreamExists):
            await store.create_stream("g", "s", at=5)
        with pytest.raises(GroupMissing):
            await store.create_stream("nowhere", "s", at=5)
        assert await store.stream("g", "../a/b c/Ω") == LogStream(group="g", name="../a/b c/Ω", created_at=T0)
        await put(store, "g", "s", "x")
        await store.delete_stream("g", "s")
        with pytest.raises(StreamMissing):
            await store.stream("g", "s")
        with pytest.raises(StreamMissing):
            await store.delete_stream("g", "s")
        with pytest.raises(StreamMissing):
            await put(store, "g", "s", "x")
        with pytest.raises(StreamMissing):
            await store.read("g", "s")
        assert store.group("g").stored_bytes == 0
        await store.create_stream("g", "s", at=7)
        assert await store.read("g", "s") == []
        assert await scanned(store, "g") == []

    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("order", ["name", "last_event"])
    async def test_streams_are_paged(self, store: LogStore, order: str, descending: bool) -> None:
        names = ["a/1", "a/2", "a/3", "a/Ω", "a0", "b", "b\U0010ffff"]
        await make(store, "g", *names)
        await make(store, "other", "a/1")
        for place, name in enumerate(("a/2", "b", "a/1", "a/Ω")):
            await put(store, "g", name, "x", at=T0 + place // 2)
        for prefix in ("", "a/", "b", "b\U0010ffff", "c"):
            found: list[LogStream] = []
            after: tuple[int, str] | None = None
            while page := await store.streams(
                "g",
                prefix=prefix,
                order=order,  # type: ignore[arg-type]
                descending=descending,
                after=after,
                limit=2,
            ):
                assert len(page) <= 2
                found += page
                after = (page[-1].last_at or 0, page[-1].name)
            wanted = [await store.stream("g", name) for name in names if name.startswith(prefix)]
            wanted.sort(
                key=lambda stream: (stream.last_at or 0 if order == "last_event" else 0, stream.name),
                reverse=descending,
            )
            assert found == wanted
        with pytest.raises(GroupMissing):
            await store.streams("nowhere")

    # ------------------------------------------------------------ appending

    async def test_events_are_numbered_and_counted(self, store: LogStore) -> None:
        await make(store, "g", "s")
        await store.append("g", "s", [LogEvent(T0 + 5, "late"), LogEvent(T0, "é€", LogKind.STDERR)], ingested_at=T0 + 9)
        await store.append("g", "s", [LogEvent(T0 + 5, "gap", LogKind.GAP)], ingested_at=T0 + 10)
        assert list(await store.read("g", "s")) == [
            StoredEvent(T0, 2, T0 + 9, "é€", LogKind.STDERR),
            StoredEvent(T0 + 5, 1, T0 + 9, "late"),
            StoredEvent(T0 + 5, 3, T0 + 10, "gap", LogKind.GAP),
        ]
        size = 4 + 5 + 3 + 3 * 26
        assert await store.stream("g", "s") == LogStream(
            group="g",
            name="s",
            created_at=T0,
            first_at=T0,
            last_at=T0 + 5,
            last_ingested_at=T0 + 10,
            next_number=4,
            stored_bytes=size,
        )
        assert store.group("g").stored_bytes == size
        await store.append("g", "s", [], ingested_at=T0 + 99)
        assert (await store.stream("g", "s")).last_ingested_at == T0 + 10

    async def test_any_text_comes_back(self, store: LogStore) -> None:
        await make(store, "g", "s")
        said = ["", " ", "\x00\x1b[31m", '{"a": "\\"b"}', "z" * 300_000, "\U0010ffff\ufffd", "\n\r\n", '`|= {x="y"}`']
        await put(store, "g", "s", *said)
        assert texts(await store.read("g", "s", max_bytes=1 << 30)) == said

    async def test_what_a_shipment_repeats_is_passed_over(self, store: LogStore) -> None:
        await make(store, "g", "s")

        async def ship(first: int, position: str, *said: str, end: bool = False) -> None:
            shipment = Shipment(first=first, position=position, end=end)
            await store.append("g", "s", lines(*said, at=T0 + first * 1000), ingested_at=T0, shipment=shipment)

        await ship(1, "p2", "1", "2")
        await ship(1, "p2", "1", "2")
        await ship(2, "p4", "2", "3", "4")
        await ship(1, "old", "1")
        known = await store.stream("g", "s")
        assert (known.shipped_next, known.position, known.ended, known.next_number) == (5, "p4", False, 5)
        await ship(8, "p8", "8")
        await ship(9, "end", end=True)
        await ship(1, "old", "1", end=True)
        known = await store.stream("g", "s")
        assert (known.shipped_next, known.position, known.ended, known.next_number) == (9, "end", True, 6)
        await put(store, "g", "s", "not shipped", at=T0 + 99_999)
        assert texts(await store.read("g", "s")) == ["1", "2", "3", "4", "8", "not shipped"]

    # ------------------------------------------------------------ reading

    async def test_reading_is_bounded(self, store: LogStore) -> None:
        await make(store, "g", "s")
        await put(store, "g", "s", *"abcdefgh", step=10)
        everything = await store.read("g", "s")
        key = {event.text: event.key for event in everything}

        async def read(**bounds: object) -> str:
            return "".join(texts(await store.read("g", "s", **bounds)))  # type: ignore[arg-type]

        assert await read() == "abcdefgh"
        assert await read(start=T0 + 10, end=T0 + 30) == "bc"
        assert await read(start=T0 + 11, end=T0 + 31) == "cd"
        assert await read(after=key["c"]) == "defgh"
        assert await read(before=key["c"]) == "ab"
        assert await read(after=key["b"], before=key["f"], limit=2) == "cd"
        assert await read(after=key["b"], before=key["f"], limit=2, newest=True) == "de"
        assert await read(newest=True, limit=3) == "fgh"
        assert await read(newest=True, end=T0 + 30, limit=1) == "c"
        assert await read(max_bytes=27 * 3) == "abc"
        assert await read(max_bytes=27 * 3, newest=True) == "fgh"
        assert await read(max_bytes=1) == "a"
        assert await read(after=key["h"]) == ""
        assert await read(before=key["a"], newest=True) == ""
        assert await read(start=T0 + 50, end=T0 + 50) == ""

    async def test_events_of_the_same_moment_are_paged_by_number(self, store: LogStore) -> None:
        await make(store, "g", "s")
        await put(store, "g", "s", *"abcdef", step=0)
        found, after = "", None
        while page := await store.read("g", "s", after=after, limit=2):
            found += "".join(texts(page))
            after = page[-1].key
        assert found == "abcdef"
        found, before = "", None
        while page := await store.read("g", "s", before=before, limit=2, newest=True):
            found = "".join(texts(page)) + found
            before = page[0].key
        assert found == "abcdef"

    async def test_old_events_come_in_their_place(self, store: LogStore) -> None:
        await make(store, "g", "s")
        await put(store, "g", "s", "d", "e", "f", at=T0 + 100_000_000)
        await put(store, "g", "s", "a", "b", at=T0)
        await put(store, "g", "s", "c", at=T0 + 2000)
        assert "".join(texts(await store.read("g", "s"))) == "abcdef"
        assert "".join(texts(await store.read("g", "s", newest=True, limit=4))) == "cdef"
        known = await store.stream("g", "s")
        assert (known.first_at, known.last_at) == (T0, T0 + 100_002_000)

    # ------------------------------------------------------------ scanning

    async def test_a_scan_merges_streams(self, store: LogStore) -> None:
        await make(store, "g", "a/1", "a/2", "b")
        await make(store, "other", "a/1")
        await put(store, "other", "a/1", "no")
        for stream in ("b", "a/2", "a/1"):
            await put(store, "g", stream, *(f"{stream}:{n}" for n in range(5)))
        await put(store, "g", "a/1", "a/1:old", at=T0 - 1)
        wanted = ["a/1:old"] + [f"{stream}:{n}" for n in range(5) for stream in ("a/1", "a/2", "b")]

        async def scan(**bounds: object) -> list[str]:
            found = await scanned(store, "g", **bounds)  # type: ignore[arg-type]
            assert all(event.text.startswith(name) for name, event in found)
            return [event.text for _, event in found]

        assert await scan() == wanted
        assert await scan(start=T0) == wanted[1:]
        assert await scan(start=T0 + 1000, end=T0 + 3000) == wanted[4:10]
        assert await scan(prefix="a/") == [text for text in wanted if text.startswith("a/")]
        assert await scan(streams=["b", "nowhere", "a/1"]) == [text for text in wanted if not text.startswith("a/2")]
        assert await scan(streams=[]) == []
        assert await scan(prefix="c") == []
        everything = await scanned(store, "g")
        for place, (name, event) in enumerate(everything):
            assert await scanned(store, "g", after=(event.at, name, event.number)) == everything[place + 1 :]

    async def test_a_scan_can_be_closed_early(self, store: LogStore) -> None:
        await make(store, "g", "s")
        await put(store, "g", "s", *map(str, range(1000)))
        chunks = store.scan("g")
        found: list[str] = []
        async for chunk in chunks:
            found += [event.text for _, event in chunk]
            if found:
                break
        await chunks.aclose()
        assert found[0] == "0"
        with pytest.raises(GroupMissing):
            await anext(store.scan("nowhere"))

    # ------------------------------------------------------------ waiting

    async def test_followers_are_woken(self, store: LogStore) -> None:
        await make(store, "g", "s", "t", "u", "v")
        await put(store, "g", "s", "1")
        async with asyncio.timeout(10):
            await store.grown("g", "s", 0)
            await store.grown("g", "nowhere", 0)
            await store.grown("nowhere", "s", 0)
            async with asyncio.TaskGroup() as group:
                for stream in ("s", "t", "u", "v"):
                    group.create_task(store.grown("g", stream, 1))
                await asyncio.sleep(0)
                await put(store, "g", "s", "2")
                end = Shipment(first=1, position="", end=True)
                await store.append("g", "t", [], ingested_at=T0, shipment=end)
                await store.delete_stream("g", "u")
                await store.delete_group("g")

    async def test_a_follower_waits(self, store: LogStore) -> None:
        await make(store, "g", "s", "t")
        await put(store, "g", "s", "1")
        async with asyncio.TaskGroup() as group:
            following = group.create_task(store.grown("g", "s", 1))
            await put(store, "g", "t", "1")
            await store.stream("g", "s")
            assert not following.done()
            following.cancel()

    # ------------------------------------------------------------ itself

    async def test_a_store_at_rest_has_no_problem(self, store: LogStore) -> None:
        await make(store, "g", "s")
        await put(store, "g", "s", "x")
        assert store.usage().problem == ""
