"""A real control-plane API on a loopback port, for real boto3 clients: what the contract tests stand on.

The server runs in a thread with an event loop of its own; the state is behind a journal in memory. Each answer that a
client of `client()` gets is checked against botocore's output model, unknown members and nulls included.
"""

import asyncio
import http.client
import inspect
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import boto3
import msgspec
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.validate import ParamValidator

from controlplane.api.ecs.clusters import ensure_default_cluster
from controlplane.api.events_route import EventStreams
from controlplane.api.logs_route import LogStreams
from controlplane.api.server import FrontDoor
from controlplane.context import Context, Endpoints
from controlplane.events.feed import JournalFeed
from controlplane.logs.insights.queries import run_queries
from controlplane.state.state import State
from homeport.arn import ArnFactory
from homeport.clock import SystemClock
from tests.fakes.clock import MovableClock
from tests.fakes.host_logs import HostLogs
from tests.fakes.journal import MemoryJournal
from tests.fakes.log_store import MemoryLogStore

__all__ = [
    "ACCESS_KEY_ID",
    "ACCOUNT",
    "REGION",
    "SECRET",
    "Answer",
    "ApiServer",
    "LoopThread",
    "MovableClock",
    "problems_with_answer",
    "sign",
]

REGION: Final = "eu-home-1"
ACCOUNT: Final = "123456789012"
ACCESS_KEY_ID: Final = "AKIAHOMEPORTTEST0001"
SECRET: Final = "a-secret-for-tests-only-0123456789abcdef"

#: What a test may wait for anything; far more than anything takes.
DEADLINE_S: Final = 20.0

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="server", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.call(_cancel_the_rest)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE_S)
        self.loop.close()

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function, plain or async, on the loop and return its result."""

        async def body() -> Any:
            result = function()
            return await result if inspect.isawaitable(result) else result

        future: Future[Any] = asyncio.run_coroutine_threadsafe(body(), self.loop)
        return future.result(DEADLINE_S)


async def _cancel_the_rest() -> None:
    """End what aiohttp leaves behind of connections that were cut in the middle of a request."""
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.wait(rest, timeout=DEADLINE_S) if rest else None


@dataclass(frozen=True)
class Answer:
    """A raw HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass
class ApiServer:
    """The server of one test. `context.state` may be read freely while no request is in flight; change it in `call`."""

    thread: LoopThread
    session: boto3.Session
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    clock: MovableClock = field(default_factory=MovableClock)
    #: (service, operation, code, seconds) of each answered request.
    observed: list[tuple[str, str, str, float]] = field(default_factory=list)
    #: What the Engines of hosts have of containers' logs.
    host_logs: HostLogs = field(default_factory=HostLogs)
    url: str = ""

    def __post_init__(self) -> None:
        self._runner: web.AppRunner | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._clients: list[Any] = []
        self.context = Context(
            state=State(self.journal),
            clock=self.clock,
            random=random.Random(20261101),
            arns=ArnFactory(REGION, ACCOUNT),
            endpoints=Endpoints(local_url="http://127.0.0.1:6180", network_url=None, ca_hash=None),
            logs=MemoryLogStore(),
        )

    async def start(self) -> None:
        door = FrontDoor(
            self.context,
            secret_of={ACCESS_KEY_ID: SECRET}.get,
            observe=lambda *observation: self.observed.append(observation),
        )
        ensure_default_cluster(self.context)
        application = web.Application()
        application.add_routes(door.routes())
        log_streams = LogStreams(self.context, door, self.host_logs.read)
        application.add_routes(log_streams.routes())
        self.streams = EventStreams(JournalFeed(self.journal, self.context.arns), door, keep_alive_s=0.2)
        application.add_routes(self.streams.routes())
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1, auto_decompress=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        context = self.context
        loop = asyncio.get_running_loop()
        self._loops = [
            loop.create_task(run_queries(context.queries, context.logs, context.clock)),
            loop.create_task(self.streams.run()),
            loop.create_task(log_streams.run()),
            loop.create_task(door.run()),
        ]

    async def stop_loops(self) -> None:
        """End what goes on in the background; requests are answered still."""
        loops, self._loops = self._loops, []
        for running in loops:
            running.cancel()
        if loops:
            await asyncio.wait(loops)

    async def stop(self) -> None:
        await self.stop_loops()
        if self._runner is not None:
            await self._runner.cleanup()

    def close_clients(self) -> None:
        for client in self._clients:
            client.close()

    # ------------------------------------------------------------ what tests use

    def client(self, service: str, **options: Any) -> Any:
        """Make a boto3 client. Its answers are checked against the model; it signs by the server's clock."""
        client = self.session.client(
            service,
            endpoint_url=options.pop("endpoint_url", self.url),
            region_name=options.pop("region_name", REGION),
            aws_access_key_id=options.pop("aws_access_key_id", ACCESS_KEY_ID),
            aws_secret_access_key=options.pop("aws_secret_access_key", SECRET),
            config=Config(retries={"total_max_attempts": 1}, **options),
        )
        client.meta.events.register("before-parse", _check_output)
        client.meta.events.register("before-send", self._sign_anew)
        self._clients.append(client)
        return client

    def call(self, function: Callable[[], T]) -> T:
        """Run something on the server's loop, e.g. apply an agent's report."""
        result: T = self.thread.call(function)
        return result

    def post(self, target: str | None, body: bytes, *, headers: dict[str, str] | None = None, **how: Any) -> Answer:
        """Send a signed request as it is; `how` goes to `sign`."""
        signed = sign(self.url, target, body, extra=headers, **how)
        return self.send("POST", "/", signed, body)

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Send a request without signing it."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=DEADLINE_S)
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def background(self, function: Callable[[], T]) -> "Future[T]":
        """Run something in a thread of its own, e.g. a request that isn't answered yet."""
        future: Future[T] = Future()

        def body() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
                future.set_exception(error)

        threading.Thread(target=body, daemon=True).start()
        return future

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Poll, on the server's loop, until something holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not self.call(holds):
            assert time.monotonic() < deadline, "it never came to hold"
            time.sleep(0.005)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Check that the state's revision doesn't move."""
        before = self.context.state.revision
        yield
        assert self.context.state.revision == before

    def _sign_anew(self, request: Any, **_: object) -> None:
        if self.clock.offset_s:
            service = request.headers["Authorization"].decode().split("/")[3]
            fresh = {k: v for k, v in request.headers.items() if k not in ("Authorization", "X-Amz-Date")}
            headers = {k: v.decode() if isinstance(v, bytes) else v for k, v in fresh.items()}
            again = AWSRequest(method=request.method, url=request.url, data=request.body, headers=headers)
            _SignerAt(Credentials(ACCESS_KEY_ID, SECRET), service, REGION, at=self.clock.now()).add_auth(again)
            for name in ("Authorization", "X-Amz-Date"):
                request.headers[name] = again.headers[name]


class _SignerAt(SigV4Auth):  # type: ignore[misc]  # botocore is untyped
    """botocore's signer with a time of its own."""

    def __init__(self, *args: Any, at: float) -> None:
        super().__init__(*args)
        self._at = at

    def _modify_request_before_signing(self, request: Any) -> None:
        request.context["timestamp"] = datetime.fromtimestamp(self._at, UTC).strftime("%Y%m%dT%H%M%SZ")
        super()._modify_request_before_signing(request)


def sign(
    url: str,
    target: str | None,
    body: bytes,
    *,
    extra: dict[str, str] | None = None,
    at: float | None = None,
    service: str = "ecs",
    region: str = REGION,
    key: str = ACCESS_KEY_ID,
    secret: str = SECRET,
    method: str = "POST",
) -> dict[str, str]:
    """Return the headers of a signed request, as botocore signs it."""
    headers = {"Content-Type": "application/x-amz-json-1.1", **(extra or {})}
    if target is not None:
        headers["X-Amz-Target"] = target
    request = AWSRequest(method=method, url=url, data=body, headers=headers)
    when = SystemClock().now() if at is None else at
    _SignerAt(Credentials(key, secret), service, region, at=when).add_auth(request)
    signed = request.prepare().headers
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in signed.items()}


# ---------------------------------------------------------------- answers against the model

#: Where AWS's own answers, by its documentation's examples, don't keep to its model.
_AWS_ITSELF: Final = (
    "RegistrationsCount, value: 0, valid min value: 1",
    "Invalid length for parameter Targets, value: 0",
)


def problems_with_answer(operation_model: Any, body: bytes) -> list[str]:
    """Say where the body of a success departs from botocore's output model, unknown members and nulls included."""
    shape = operation_model.output_shape
    document = msgspec.json.decode(body)
    if shape is None:
        return [] if document == {} else [f"{operation_model.name} answers with nothing"]
    problems = list(_strangers(shape, document, operation_model.name))
    report = ParamValidator().validate(document, shape).generate_report()
    return problems + [line for line in report.splitlines() if not any(odd in line for odd in _AWS_ITSELF)]


def _check_output(operation_model: Any, response_dict: dict[str, Any], **_: object) -> None:
    if response_dict["status_code"] != 200 or operation_model.metadata["protocol"] == "query":
        return
    if operation_model.has_event_stream_output:
        return
    problems = problems_with_answer(operation_model, response_dict["body"])
    assert not problems, "\n".join(problems)


def _strangers(shape: Any, value: Any, path: str) -> Iterator[str]:
    """Yield what botocore's validator lets pass: members the model doesn't have, nulls, values outside an enum."""
    if value is None:
        yield f"{path} is null"
    elif shape.type_name == "structure" and not shape.is_document_type:
        for name, item in value.items():
            if name in shape.members:
                yield from _strangers(shape.members[name], item, f"{path}.{name}")
            else:
                yield f"{path}.{name} is not in the model"
    elif shape.type_name == "list":
        for number, item in enumerate(value):
            yield from _strangers(shape.member, item, f"{path}[{number}]")
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _strangers(shape.value, item, f"{path}.{key}")
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        yield f"{path}: {value!r} is not one of {shape.enum}"
