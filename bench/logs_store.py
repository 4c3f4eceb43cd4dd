"""The log store: what writing costs, what it keeps on disk, and what reading a few lines of much history takes.

    python -m bench.logs_store [--directory DIR] [--gigabytes N] [--streams N]

prints JSON. Ratios are taken within the run: writing over the floor, the same bytes written and synced to a plain file,
batch by batch; the hour that is searched over all there is. Reads are of a fresh process, files out of the page cache.
"""

import argparse
import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import psutil

from bench.common import Json, machine, summary
from controlplane.logs.api import LogEvent, LogGroup, Shipment, size_of
from controlplane.logs.store import SegmentLogStore

__all__ = ["logs_store"]

GROUP: Final = "/bench/web"
#: The history is a day's.
DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
BEGIN: Final = 1_800_000_000_000
#: Lines in a batch, as an agent ships it.
BATCH: Final = 500
#: Batches of different lines; a block holds a few.
POOL: Final = 200
LIMIT: Final = 1 << 50
_SEED: Final = 1


def logs_store(directory: Path, *, gigabytes: float = 1.0, streams: int = 100) -> Json:
    """Measure in a fresh directory below `directory`."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        here = Path(name)
        written = asyncio.run(_write(here / "logs", int(gigabytes * 1e9), streams))
        floor = _floor(here / "floor", min(int(gigabytes * 1e9), 10**9))
        _out_of_cache(here / "logs")
        read = _in_fresh_process("--read", here / "logs")
        _out_of_cache(here / "logs")
        searched = _in_fresh_process("--search", here / "logs")
    return {
        "machine": machine(),
        "floor_mb_per_second": floor,
        "write": written,
        "ratio_of_write_to_floor": round(written["mb_per_second"] / floor, 2),
        "last_100_lines": read,
        "one_hour_of_the_day": {
            **searched,
            "ratio_of_blocks": round(searched["blocks_read"] / written["blocks"], 4),
        },
        "for_100_gb": _arithmetic(written),
    }


def _arithmetic(written: Json) -> Json:
    factor = 100e9 / written["bytes"]
    return {
        "events": round(written["events"] * factor),
        "blocks": round(written["blocks"] * factor),
        "catalog_mb": round(written["catalog_bytes"] * factor / 1e6),
        "disk_gb": round(written["disk_bytes"] * factor / 1e9, 1),
        "write_minutes": round(written["seconds"] * factor / 60),
    }


# ---------------------------------------------------------------- writing


def example_lines(source: random.Random, count: int) -> list[str]:
    """Return lines as web applications write them: half of them JSON, half an access log's."""
    verbs, paths = ("GET", "GET", "GET", "POST", "PUT"), ("/api/orders", "/api/users", "/static/app.js", "/health", "/")
    found = []
    for _ in range(count):
        number, took = source.getrandbits(64), source.expovariate(0.05)
        verb, path, status = source.choice(verbs), source.choice(paths), source.choice((200, 200, 200, 304, 404, 500))
        if source.random() < 0.5:
            found.append(
                f'{{"level":"info","logger":"web.request","request_id":"{number:016x}","method":"{verb}",'
                f'"path":"{path}/{number % 99991}","status":{status},"duration_ms":{took:.2f}}}'
            )
        else:
            address = f"10.{number % 4}.{number % 251}.{number % 253}"
            found.append(
                f'{address} - - "{verb} {path}?id={number % 99991} HTTP/1.1" {status} {number % 50000} "-" "curl/8.5.0"'
                f" {took / 1000:.3f}"
            )
    return found


async def _write(root: Path, size: int, streams: int) -> Json:
    """Have all streams grow side by side, each waiting for its last batch, until `size` bytes are there."""
    source = random.Random(_SEED)
    pool = [example_lines(source, BATCH) for _ in range(POOL)]
    batch_size = sum(size_of(line) for lines in pool for line in lines) / POOL
    batches = max(round(size / batch_size / streams), 1)
    step = DAY_MS // (batches * BATCH)
    process = psutil.Process()
    latencies: list[float] = []
    before = process.memory_info().rss
    async with SegmentLogStore.open(root, limit_bytes=LIMIT) as store, asyncio.TaskGroup() as background:
        running = background.create_task(store.run())
        await store.create_group(LogGroup(name=GROUP, created_at=BEGIN))

        async def ship(stream: int) -> None:
            await store.create_stream(GROUP, f"web/{stream}", at=BEGIN)
            for number in range(batches):
                at = BEGIN + number * BATCH * step + stream
                lines = pool[(number * 7 + stream) % POOL]
                events = [LogEvent(at + place * step, line) for place, line in enumerate(lines)]
                shipment = Shipment(first=1 + number * BATCH, position=str(number), end=number == batches - 1)
                asked = time.perf_counter()
                await store.append(GROUP, f"web/{stream}", events, ingested_at=at, shipment=shipment)
                latencies.append(time.perf_counter() - asked)

        began, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for stream in range(streams):
                group.create_task(ship(stream))
        await store.seal()
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        raw, held = store.group(GROUP).stored_bytes, process.memory_info().rss - before
        await store.tend()
        used = store.usage().used_bytes
        blocks = await store.blocks()
        running.cancel()
    events = streams * batches * BATCH
    catalog = _packed(root / "catalog.db")
    return {
        "bytes": raw,
        "events": events,
        "streams": streams,
        "seconds": round(took, 1),
        "mb_per_second": round(raw / 1e6 / took, 1),
        "events_per_second": round(events / took),
        "cpu_seconds_per_gb": round(cpu / (raw / 1e9), 1),
        "append_ms": summary([seconds * 1000 for seconds in latencies]),
        "memory_mb": round(held / 1e6),
        "blocks": blocks,
        "disk_bytes": used,
        "disk_bytes_per_byte": round(used / raw, 3),
        "catalog_bytes": catalog,
        "catalog_bytes_per_block": round(catalog / blocks),
    }


def _packed(catalog: Path) -> int:
    """Return the bytes of the catalog without the free pages that the tails have left in it."""
    packed = catalog.with_name("packed.db")
    with closing(sqlite3.connect(catalog)) as connection:
        connection.execute("VACUUM INTO ?", (str(packed),))
    return packed.stat().st_size


def _floor(path: Path, size: int) -> float:
    """Write the same lines to a file, a batch of all streams' worth at a time, each synced."""
    lines = ("\n".join(example_lines(random.Random(_SEED), 100 * BATCH)) + "\n").encode()
    with path.open("wb", buffering=0) as file:
        began = time.perf_counter()
        for _ in range(max(size // len(lines), 1)):
            file.write(lines)
            os.fsync(file.fileno())
        return round(file.tell() / 1e6 / (time.perf_counter() - began), 1)


# ---------------------------------------------------------------- reading


def _out_of_cache(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _in_fresh_process(what: str, root: Path) -> Json:
    command = [sys.executable, "-m", "bench.logs_store", what, str(root)]
    result: Json = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


async def _read(root: Path) -> Json:
    """Read the last 100 lines of each stream once, and a page from the middle of each."""
    began = time.perf_counter()
    async with SegmentLogStore.open(root, limit_bytes=LIMIT) as store:
        opened = time.perf_counter() - began
        streams = [stream.name for stream in await store.streams(GROUP, limit=10_000)]
        last, middle = [], []
        for stream in streams:
            began = time.perf_counter()
            found = await store.read(GROUP, stream, newest=True, limit=100)
            last.append((time.perf_counter() - began) * 1000)
            assert len(found) == 100
        blocks = store.blocks_read
        for stream in streams:
            began = time.perf_counter()
            await store.read(GROUP, stream, start=BEGIN + DAY_MS // 2, limit=100)
            middle.append((time.perf_counter() - began) * 1000)
        return {
            "open_ms": round(opened * 1000, 1),
            "ms": summary(last),
            "blocks_per_read": round(blocks / len(streams), 2),
            "from_the_middle_ms": summary(middle),
        }


async def _search(root: Path) -> Json:
    """Scan an hour of the whole group."""
    process = psutil.Process()
    async with SegmentLogStore.open(root, limit_bytes=LIMIT) as store:
        before = peak = process.memory_info().rss
        began = time.perf_counter()
        first, events, size = 0.0, 0, 0
        start = BEGIN + 12 * HOUR_MS
        async for chunk in store.scan(GROUP, start=start, end=start + HOUR_MS):
            if chunk and not events:
                first = time.perf_counter() - began
            events += len(chunk)
            size += sum(size_of(event.text) for _, event in chunk)
            peak = max(peak, process.memory_info().rss)
        took = time.perf_counter() - began
        return {
            "seconds": round(took, 2),
            "first_chunk_ms": round(first * 1000, 1),
            "events": events,
            "mb_per_second": round(size / 1e6 / took, 1),
            "blocks_read": store.blocks_read,
            "memory_mb": round((peak - before) / 1e6),
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Measure the log store.")
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="where to write (the disk to measure)")
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.read is not None:
        result = asyncio.run(_read(given.read))
    elif given.search is not None:
        result = asyncio.run(_search(given.search))
    else:
        result = logs_store(given.directory, gigabytes=given.gigabytes, streams=given.streams)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
