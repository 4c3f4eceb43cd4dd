"""DockerEngine against what a real Engine can't be made to do on demand: silences, dead connections, lost answers."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from agent.engine.api import ContainerPlan, EngineEvent, PullProgress
from agent.engine.docker import DockerEngine
from agent.engine.errors import Conflict, EngineError, EngineTimeout, EngineUnavailable, Rejected
from agent.engine.limits import Limits
from agent.engine.pulls import RegistryAuth, registry_of, split_reference
from agent.engine.transport import docker_host_of
from tests.fakes.docker_api import DockerApi, docker_api, drop, error, stream

LIMITS = Limits(
    inspect_s=5,
    start_s=0.2,
    create_s=2,
    open_s=5,
    pull_begin_s=0.3,
    pull_idle_s=0.2,
    events_retry_min_s=0.01,
    events_retry_max_s=0.02,
)
IMAGE = {"Id": "sha256:1", "RepoDigests": ["example.org/shop@sha256:2"]}
REFERENCE = "example.org/shop:1"
LOOK_UP = "GET images/example.org/shop:1/json"
PLAN = ContainerPlan(
    name="name",
    labels={"homeport.instance": "i", "homeport.task": "t", "homeport.container": "c"},
    body={"Image": "x"},
)
CREATE, NAMED = "POST containers/create", "GET containers/name/json"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[DockerApi]:
    async with docker_api(tmp_path) as api:
        yield api


@pytest.fixture
async def engine(api: DockerApi) -> AsyncIterator[DockerEngine]:
    async with DockerEngine(api.docker_host, limits=LIMITS) as engine:
        yield engine


async def cut_short(request: web.Request) -> web.StreamResponse:
    """Send half a message, and end as if all was well."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"status": "Pul')
    return response


def existing(status: str, **labels: str) -> dict[str, object]:
    return {"Id": "found", "State": {"Status": status}, "Config": {"Labels": PLAN.labels | labels}}


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (None, {}, "unix:///var/run/docker.sock"),
        (None, {"DOCKER_HOST": "tcp://10.0.0.1:2375"}, "tcp://10.0.0.1:2375"),
        ("unix:///x", {"DOCKER_HOST": "tcp://10.0.0.1:2375"}, "unix:///x"),
    ],
)
def test_where_the_engine_is(given: str | None, environment: dict[str, str], expected: str) -> None:
    assert docker_host_of(given, environment) == expected


async def test_an_engine_is_reached_over_tcp_too(tmp_path: Path) -> None:
    async with docker_api(tmp_path, tcp=True) as api:
        api.answer("GET events", stream(hang=True))
        api.answer(LOOK_UP, IMAGE)
        async with DockerEngine(api.docker_host) as engine:
            assert await engine.image(REFERENCE) is not None
            assert await read(engine.events({}), 1) == ["resync"]


async def test_a_call_on_a_dead_connection_is_repeated_once_on_a_new_one(api: DockerApi, engine: DockerEngine) -> None:
    api.answer("POST containers/c/start", drop(), None)
    await engine.start("c")
    assert len(api.asked("POST containers/c/start")) == 2


async def test_a_second_dead_connection_is_the_engines_absence(api: DockerApi, engine: DockerEngine) -> None:
    api.answer("POST containers/c/start", drop())
    with pytest.raises(EngineUnavailable):
        await engine.start("c")
    assert len(api.asked("POST containers/c/start")) == 2


async def test_a_silent_call_ends_at_its_limit(api: DockerApi, engine: DockerEngine) -> None:
    api.answer("POST containers/c/start", stream(before=asyncio.Event()))
    with pytest.raises(EngineTimeout, match=r"start c: no answer from the Docker Engine within 0\.2 s"):
        await engine.start("c")


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (500, "driver failed: port is already allocated", Rejected),
        (400, "OCI runtime create failed", Rejected),
        (409, "container is marked for removal", Conflict),
        (404, "network web not found", Rejected),
        (500, 'connection error: desc = "transport: Error while dialing: dial unix /run/c.sock"', EngineUnavailable),
    ],
)
async def test_refusals_are_told_apart(
    api: DockerApi, engine: DockerEngine, status: int, text: str, kind: type[EngineError]
) -> None:
    api.answer("POST containers/c/start", error(status, text))
    with pytest.raises(kind, match=text.partition(":")[0]) as caught:
        await engine.start("c")
    assert type(caught.value) is kind


async def test_who_is_no_engine_is_not_taken_for_one(api: DockerApi, engine: DockerEngine) -> None:
    async def page(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="<h1>hello</h1>", content_type="text/html")

    api.answer("GET containers/c/json", page)
    with pytest.raises(EngineUnavailable, match="doesn't answer as a Docker Engine"):
        await engine.inspect("c")


async def test_every_call_is_observed_with_its_outcome(api: DockerApi) -> None:
    seen: list[tuple[str, str]] = []
    api.answer("GET containers/c/json", error(404, "No such container: c"))
    api.answer("POST containers/c/start", error(500, "no"))

    def observe(call: str, seconds: float, outcome: str) -> None:
        assert seconds >= 0
        seen.append((call, outcome))

    async with DockerEngine(api.docker_host, limits=LIMITS, observe=observe) as engine:
        assert await engine.inspect("c") is None
        with pytest.raises(Rejected):
            await engine.start("c")
    assert seen == [("inspect", "ok"), ("start", "Rejected")]


# ---------------------------------------------------------------- create


TAKEN = error(409, 'Conflict. The container name "/name" is already in use by container "found".')


async def test_a_name_that_is_just_being_made_is_waited_for(api: DockerApi, engine: DockerEngine) -> None:
    api.answer(CREATE, TAKEN)
    api.answer(NAMED, error(404, "No such container: name"), existing("created"))
    assert await engine.create(PLAN) == "found"


async def test_a_name_that_is_just_being_removed_is_waited_for(api: DockerApi, engine: DockerEngine) -> None:
    api.answer(CREATE, TAKEN, {"Id": "new"})
    api.answer(NAMED, existing("removing"))
    assert await engine.create(PLAN) == "new"


async def test_a_name_that_is_anothers_is_left_alone(api: DockerApi, engine: DockerEngine) -> None:
    api.answer(CREATE, TAKEN)
    api.answer(NAMED, existing("running", **{"homeport.instance": "another"}))
    with pytest.raises(Conflict):
        await engine.create(PLAN)


# ---------------------------------------------------------------- pulls


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("shop", ("shop", "latest")),
        ("shop:2", ("shop", "2")),
        ("localhost:5000/team/shop", ("localhost:5000/team/shop", "latest")),
        ("localhost:5000/shop:2", ("localhost:5000/shop", "2")),
        ("shop@sha256:ab", ("shop", "sha256:ab")),
        ("shop:2@sha256:ab", ("shop:2", "sha256:ab")),
    ],
)
def test_what_is_asked_for(reference: str, expected: tuple[str, str]) -> None:
    assert split_reference(reference) == expected


async def test_a_pull_tells_its_progress_and_gives_the_digest(api: DockerApi, engine: DockerEngine) -> None:
    api.answer(
        "POST images/create",
        stream(
            {"status": "Pulling from shop", "id": "1"},
            {"status": "Downloading", "id": "a", "progressDetail": {"current": 50, "total": 100}},
            {"status": "Status: Downloaded newer image"},
        ),
    )
    api.answer(LOOK_UP, IMAGE)
    told: list[PullProgress] = []
    facts = await engine.pull(REFERENCE, told.append)
    assert facts.digest == "sha256:2"
    assert told == [PullProgress(done_bytes=50, total_bytes=100)]
    (request,) = api.asked("POST images/create")
    assert dict(request.query) == {"fromImage": "example.org/shop", "tag": "1"}
    assert "X-Registry-Auth" not in request.headers


@pytest.mark.parametrize(
    "message",
    [
        {"error": "no space left", "errorDetail": {"message": "no space left"}},
        {"errorDetail": {"message": "no space left"}},
        {"error": "no space left"},
    ],
)
async def test_a_pull_that_fails_in_the_stream_fails(
    api: DockerApi, engine: DockerEngine, message: dict[str, object]
) -> None:
    api.answer("POST images/create", stream(message))
    with pytest.raises(Rejected, match=r"^no space left$"):
        await engine.pull(REFERENCE)


async def test_a_pull_that_breaks_off_is_the_engines_absence(api: DockerApi, engine: DockerEngine) -> None:
    api.answer("POST images/create", cut_short)
    with pytest.raises(EngineUnavailable):
        await engine.pull(REFERENCE)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("shop", None),
        ("team/shop", None),
        ("example.org/shop", "example.org"),
        ("localhost/shop", "localhost"),
        ("host:5000/team/shop", "host:5000"),
    ],
)
def test_which_registry_an_image_means(image: str, expected: str | None) -> None:
    assert registry_of(image) == expected


async def test_a_pull_without_progress_ends(api: DockerApi, engine: DockerEngine) -> None:
    api.answer("POST images/create", stream({"status": "Pulling", "id": "1"}, hang=True))
    with pytest.raises(EngineTimeout, match=r"pull example\.org/shop:1: no progress for 0\.2 s"):
        await engine.pull(REFERENCE)


async def test_a_pull_that_does_not_begin_ends(api: DockerApi, engine: DockerEngine) -> None:
    api.answer("POST images/create", stream(before=asyncio.Event()))
    with pytest.raises(EngineTimeout, match="pull"):
        await engine.pull(REFERENCE)


async def test_a_pull_that_just_ends_is_no_success(api: DockerApi, engine: DockerEngine) -> None:
    api.answer("POST images/create", stream({"status": "Pulling", "id": "1"}))
    api.answer(LOOK_UP, error(404, "No such image"))
    with pytest.raises(EngineUnavailable, match="without an image or an error"):
        await engine.pull(REFERENCE)


async def test_callers_of_one_image_share_one_pull(api: DockerApi, engine: DockerEngine) -> None:
    begin = asyncio.Event()
    api.answer("POST images/create", stream({"status": "x", "id": "1"}, before=begin))
    api.answer(LOOK_UP, IMAGE)
    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(engine.pull(REFERENCE)) for _ in range(5)]
        await until_asked(api, "POST images/create")
        begin.set()
    assert {pull.result().digest for pull in pulls} == {"sha256:2"}
    assert len(api.asked("POST images/create")) == 1


async def test_callers_of_one_image_share_its_failure(api: DockerApi, engine: DockerEngine) -> None:
    begin = asyncio.Event()
    api.answer("POST images/create", stream({"error": "denied"}, before=begin))
    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(failure_of(engine)) for _ in range(3)]
        await until_asked(api, "POST images/create")
        begin.set()
    assert [pull.result() for pull in pulls] == ["denied"] * 3
    assert len(api.asked("POST images/create")) == 1


async def test_when_the_leader_is_cancelled_another_leads(api: DockerApi, engine: DockerEngine) -> None:
    api.answer("POST images/create", stream(before=asyncio.Event()), stream({"status": "x", "id": "1"}))
    api.answer(LOOK_UP, IMAGE)
    async with asyncio.TaskGroup() as group:
        leader = group.create_task(engine.pull(REFERENCE))
        await until_asked(api, "POST images/create")
        follower = group.create_task(engine.pull(REFERENCE))
        await asyncio.sleep(0)
        leader.cancel()
    assert follower.result().digest == "sha256:2"
    assert len(api.asked("POST images/create")) == 2


async def test_credentials_go_to_their_registry(api: DockerApi, engine: DockerEngine) -> None:
    api.answer("POST images/create", stream({"status": "x", "id": "1"}))
    api.answer(LOOK_UP, IMAGE)
    await engine.pull(REFERENCE, auth=RegistryAuth(username="me", password="secret"))
    (request,) = api.asked("POST images/create")
    sent = json.loads(base64.urlsafe_b64decode(request.headers["X-Registry-Auth"]))
    assert (sent["username"], sent["password"], sent["serveraddress"]) == ("me", "secret", "example.org")


async def failure_of(engine: DockerEngine) -> str:
    with pytest.raises(Rejected) as caught:
        await engine.pull(REFERENCE)
    return str(caught.value)


async def until_asked(api: DockerApi, route: str) -> None:
    async with asyncio.timeout(5):
        while not api.asked(route):  # noqa: ASYNC110 - the request comes over a real socket
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------- events


def document(action: str, at_ns: int) -> dict[str, object]:
    return {"Action": action, "timeNano": at_ns, "Actor": {"ID": "c", "Attributes": {}}}


async def read(events: AsyncIterator[EngineEvent], count: int) -> list[str]:
    async with asyncio.timeout(5):
        return [(await anext(events)).kind for _ in range(count)]


async def test_a_resync_comes_only_once_the_stream_is_open(api: DockerApi, engine: DockerEngine) -> None:
    opened = asyncio.Event()
    api.answer("GET events", stream(hang=True, before=opened))
    events = engine.events({"homeport.instance": "i"})
    async with asyncio.TaskGroup() as group:
        first = group.create_task(read(events, 1))
        await until_asked(api, "GET events")
        assert not first.done()
        opened.set()
    assert first.result() == ["resync"]
    (request,) = api.asked("GET events")
    filters = json.loads(request.query["filters"])
    assert filters["label"] == ["homeport.instance=i"]
    assert "exec_die" not in filters["event"]
    assert "since" not in request.query


async def test_a_stream_that_ends_goes_on_from_its_last_event(api: DockerApi, engine: DockerEngine) -> None:
    api.answer(
        "GET events",
        stream(document("start", 1_000_000_001), document("exec_start", 2_000_000_002)),
        error(500, "not now"),
        stream(document("die", 3_000_000_003), hang=True),
    )
    events = engine.events({})
    assert await read(events, 4) == ["resync", "start", "resync", "die"]
    assert api.asked("GET events")[-1].query["since"] == "2.000000002"


async def test_an_event_that_is_cut_short_is_not_the_end(api: DockerApi, engine: DockerEngine) -> None:
    api.answer("GET events", cut_short, stream(document("die", 2), hang=True))
    assert await read(engine.events({}), 3) == ["resync", "resync", "die"]


async def test_a_silent_stream_is_opened_anew_now_and_then(api: DockerApi) -> None:
    api.answer("GET events", stream(hang=True))
    async with DockerEngine(api.docker_host, limits=Limits(events_age_s=0.05)) as engine:
        assert await read(engine.events({}), 3) == ["resync"] * 3


async def test_a_reader_that_was_away_is_told_to_look_again(api: DockerApi) -> None:
    api.answer("GET events", stream(document("start", 1), document("die", 2), hang=True))
    async with DockerEngine(api.docker_host, limits=Limits(events_stall_s=0.01)) as engine:
        events = engine.events({})
        assert await read(events, 2) == ["resync", "start"]
        await asyncio.sleep(0.05)
        assert await read(events, 1) == ["resync"]


async def test_streams_are_closed_with_their_readers(api: DockerApi, engine: DockerEngine) -> None:
    closed = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        try:
            return await stream(hang=True)(request)
        finally:
            closed.set()

    api.answer("GET events", endless)
    events = engine.events({})
    assert await read(events, 1) == ["resync"]
    await events.aclose()
    async with asyncio.timeout(5):
        await closed.wait()
