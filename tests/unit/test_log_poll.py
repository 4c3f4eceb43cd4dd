"""Reading a container's log through the Engine's API: each record once and in order, whatever the Engine still has."""

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from agent.engine.docker import DockerEngine
from agent.engine.errors import EngineError, NotFound
from agent.engine.limits import Limits
from agent.engine.output import Lost, OutputReader, Record, Spool
from tests.fakes.docker_api import DockerApi, docker_api, error
from tests.fakes.fleet import eventually
from tests.fakes.json_file import stamp

START = 1_800_000_000_000_000_000
LOGS = "GET containers/c/logs"


class FakeLog:
    """What the Engine has of a container's log. `torn`: where it can't read on."""

    def __init__(self, api: DockerApi, *, terminal: bool = False, full_at: str = "16m") -> None:
        self.lines: list[int] = []
        self.torn: int | None = None
        self.tails: list[str] = []
        self._written = asyncio.Event()
        config = {"max-size": full_at, "max-file": "4"}
        api.answer(
            "GET containers/c/json",
            {
                "Id": "c",
                "LogPath": "/nowhere/c-json.log",
                "Config": {"Tty": terminal},
                "HostConfig": {"LogConfig": {"Type": "json-file", "Config": config}},
            },
        )
        api.answer(LOGS, self.answer)
        self._terminal = terminal

    def write(self, *numbers: int) -> None:
        self.lines += numbers
        self._written.set()
        self._written = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if "follow" in request.query:
            while True:
                await self._written.wait()
                await response.write(self._piece(0))
        tail = request.query["tail"]
        self.tails.append(tail)
        for number in self.lines if tail == "all" else self.lines[-int(tail) :]:
            if number == self.torn:
                await response.write(struct.pack(">BxxxL", 3, 6) + b"Error\n")
                break
            await response.write(self._piece(number))
        return response

    def _piece(self, number: int) -> bytes:
        text = f"{stamp(START + number)} {number}\n".encode()
        return text if self._terminal else struct.pack(">BxxxL", 1 + number % 2, len(text)) + text


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[DockerApi]:
    async with docker_api(tmp_path) as api:
        yield api


@pytest.fixture
async def engine(api: DockerApi) -> AsyncIterator[DockerEngine]:
    async with DockerEngine(api.docker_host, limits=Limits(log_idle_s=5)) as engine:
        yield engine


async def told(reader: OutputReader, size: int = 1 << 20) -> list[object]:
    """Read what there is; numbers, and "lost"."""
    items: list[Record | Lost] = []
    while reader.waiting():
        items += await reader.read(size)
    return [int(each.text) if isinstance(each, Record) else "lost" for each in items]


async def position_behind(engine: DockerEngine, number: int) -> str:
    async with engine.output("c", "") as reader:
        items = await reader.read(1 << 30)
    return next(str(each.mark) for each in items if isinstance(each, Record) and each.text == f"{number}\n")


@pytest.mark.parametrize("terminal", [False, True])
async def test_what_is_written_is_read_in_order_when_the_engine_rings(
    api: DockerApi, engine: DockerEngine, terminal: bool
) -> None:
    log = FakeLog(api, terminal=terminal)
    log.write(1, 2, 3)
    async with engine.output("c", "") as reader:
        assert await told(reader, 3) == [1, 2, 3]
        await eventually(lambda: len([r for r in api.asked(LOGS) if "follow" in r.query]) == 1)
        await told(reader)
        log.write(4)
        await eventually(reader.waiting)
        assert await told(reader) == [4]
        assert log.tails[-1] == "100"


async def test_in_the_midst_of_a_log_much_waits(api: DockerApi, engine: DockerEngine) -> None:
    """Else it would be read at the pace of one who waits for more, and be rotated away meanwhile."""
    log = FakeLog(api)
    log.write(1, 2, 3)
    async with engine.output("c", "") as reader:
        assert reader.waiting() < 100
        await reader.read(1)
        assert reader.waiting() > 512 * 1024
        assert await told(reader) == [2, 3]


async def test_the_place_is_looked_for_from_the_end(api: DockerApi, engine: DockerEngine) -> None:
    log = FakeLog(api)
    log.write(*range(1, 3001))
    position = await position_behind(engine, 500)
    log.tails.clear()
    async with engine.output("c", position) as reader:
        assert await told(reader) == list(range(501, 3001))
    assert log.tails[:3] == ["100", "1000", "10000"]
    assert "all" not in log.tails


async def test_what_was_rotated_away_is_told(api: DockerApi, engine: DockerEngine) -> None:
    log = FakeLog(api)
    log.write(*range(1, 30))
    position = await position_behind(engine, 5)
    del log.lines[:10]
    async with engine.output("c", position) as reader:
        assert await told(reader) == ["lost", *range(11, 30)]


async def test_a_beginning_that_may_be_gone_is_told(api: DockerApi, engine: DockerEngine) -> None:
    log = FakeLog(api, full_at="1k")
    log.write(*range(1, 100))
    async with engine.output("c", "") as reader:
        lost, *rest = await reader.read(1 << 20)
    assert isinstance(lost, Lost)
    assert not lost.sure
    assert len(rest) == 99


async def test_behind_a_record_that_is_torn_the_end_is_read(api: DockerApi, engine: DockerEngine) -> None:
    log = FakeLog(api)
    log.write(*range(1, 500))
    log.torn = 300
    async with engine.output("c", "") as reader:
        items = await told(reader)
        while len(items) < 400:
            await eventually(reader.waiting)
            items += await told(reader)
        assert items == [*range(1, 300), "lost", *range(400, 500)]
        log.write(500)
        await eventually(reader.waiting)
        assert await told(reader) == [500]


async def test_a_position_that_nobody_understands_begins_anew(api: DockerApi, engine: DockerEngine) -> None:
    FakeLog(api).write(1)
    async with engine.output("c", "?") as reader:
        assert await told(reader) == ["lost", 1]


async def test_the_engines_errors_come_through_as_they_are(api: DockerApi, engine: DockerEngine) -> None:
    FakeLog(api)
    api.answer(LOGS, error(500, "no"))
    async with engine.output("c", "") as reader:
        with pytest.raises(EngineError, match="no"):
            await reader.read(1)
    api.answer(LOGS, error(404, "No such container: c"))
    with pytest.raises(NotFound):
        async with engine.output("c", "") as reader:
            await reader.read(1)
    api.answer("GET containers/c/json", error(404, "No such container: c"))
    with pytest.raises(NotFound):
        async with engine.output("c", ""):
            pass


@pytest.mark.parametrize(
    ("options", "spool"),
    [
        ({"max-size": "16m", "max-file": "4"}, Spool(4, 16_000_000)),
        ({"max-size": "100kb", "max-file": "2"}, Spool(2, 100_000)),
        ({"max-size": "500"}, Spool(1, 500)),
        ({}, Spool(1, 2**63)),
    ],
)
def test_the_engines_options_say_how_much_it_keeps(options: dict[str, str], spool: Spool) -> None:
    assert Spool.of(options) == spool
