"""The paths of a request: signature, decoding and validation, placing, the records, the answer."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from bench.common import signed
from bench.hotpaths.model import Path, Round
from controlplane.api.codec import JsonCodec
from controlplane.api.ecs.clusters import ensure_default_cluster
from controlplane.api.server import FrontDoor
from controlplane.api.services import load_services
from controlplane.api.validation import check
from controlplane.context import Context
from controlplane.scheduling.model import Demand, Strategy, candidate_of
from controlplane.scheduling.placement import place
from homeport.spec import Resources
from tests.contract.definitions import FULL_CONTAINER, definition
from tests.fakes.clock import ManualClock
from tests.fakes.records import a_context, an_instance, connect, put

__all__ = ["DECODE", "DESCRIBE_TASKS", "PLACE", "RUN_TASK"]

_HOSTS = 200
_KEY, _SECRET = "AKIAHOMEPORTBENCH001", "a-secret-for-benchmarks-only-0123456789a"


def _context() -> Context:
    """A control plane with hosts, at the time by which requests are signed."""
    context = a_context(ManualClock(time.time()))
    ensure_default_cluster(context)
    hosts = [
        an_instance(f"{number:032x}", cpu=10**6, memory=10**7, attributes={"zone": f"z{number % 5}"})
        for number in range(_HOSTS)
    ]
    put(context, *hosts)
    connect(context, *hosts)
    return context


class _Api:
    """The front door behind aiohttp, and one connection to it over loopback."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @staticmethod
    def signed(operation: str, document: dict[str, Any]) -> bytes:
        """Return a request as it goes over the wire; good for five minutes."""
        target = f"AmazonEC2ContainerServiceV20141113.{operation}"
        headers, body = signed("http://127.0.0.1", target, document, key_id=_KEY, secret=_SECRET)
        fields = {"Host": "127.0.0.1", **headers, "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"POST / HTTP/1.1\r\n{head}\r\n{body}".encode()

    async def send(self, request: bytes) -> bytes:
        """Send a request; return the answer's body. AssertionError unless it is served."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await self._reader.readexactly(int(length.partition(b":")[2]))
        assert b" 200 " in head.partition(b"\r\n")[0], body
        return body

    async def call(self, operation: str, document: dict[str, Any]) -> Any:
        """Send a request; return the document it is answered with."""
        return json.loads(await self.send(self.signed(operation, document)))


@asynccontextmanager
async def _api() -> AsyncIterator[_Api]:
    door = FrontDoor(_context(), secret_of={_KEY: _SECRET}.get)
    application = web.Application()
    application.add_routes(door.routes())
    runner = web.AppRunner(application, access_log=None, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        yield _Api(reader, writer)
        writer.close()
    finally:
        await runner.cleanup()


# ---------------------------------------------------------------- decode and validate

_DECODED = 20


@asynccontextmanager
async def _decode() -> AsyncIterator[Round]:
    (ecs,) = (service for service in load_services().all if service.name == "ecs")
    assert ecs.operations is not None
    shape = ecs.operations["RegisterTaskDefinition"].input
    body = json.dumps({"family": "web", "containerDefinitions": [FULL_CONTAINER] * 2}).encode()
    codec = JsonCodec()

    async def once() -> None:
        for _ in range(_DECODED):
            check(shape, codec.parse(body, shape), validation_error=ecs.validation_error)

    yield once


DECODE = Path("decode and validate RegisterTaskDefinition", _DECODED, _decode)

# ---------------------------------------------------------------- place

_PLACED = 1000


@asynccontextmanager
async def _place() -> AsyncIterator[Round]:
    context = _context()
    candidates = [candidate_of(context.state, instance) for instance in context.state.instances]
    demand = Demand(
        resources=Resources(cpu_units=64, memory_mib=128),
        group="service:web",
        strategy=(Strategy("spread", "zone"), Strategy("binpack", "memory")),
    )

    async def once() -> None:
        assert len(place(candidates, demand, _PLACED, random.Random(1)).chosen) == _PLACED

    yield once


PLACE = Path("place a task of 1000 on 200 hosts", _PLACED, _place)

# ---------------------------------------------------------------- whole requests

_REQUESTS = 20


@asynccontextmanager
async def _run_task() -> AsyncIterator[Round]:
    async with _api() as api:
        await api.call("RegisterTaskDefinition", definition())
        request = api.signed("RunTask", {"taskDefinition": "web", "count": 10})

        async def once() -> None:
            for _ in range(_REQUESTS):
                assert (await api.send(request)).count(b'"desiredStatus"') == 10

        yield once


RUN_TASK = Path("RunTask of 10, signed", _REQUESTS, _run_task)


@asynccontextmanager
async def _describe_tasks() -> AsyncIterator[Round]:
    async with _api() as api:
        await api.call("RegisterTaskDefinition", definition())
        tasks = (await api.call("RunTask", {"taskDefinition": "web", "count": 10}))["tasks"]
        request = api.signed("DescribeTasks", {"tasks": [task["taskArn"] for task in tasks]})

        async def once() -> None:
            for _ in range(_REQUESTS):
                assert (await api.send(request)).count(b'"desiredStatus"') == 10

        yield once


DESCRIBE_TASKS = Path("DescribeTasks of 10, signed", _REQUESTS, _describe_tasks)
