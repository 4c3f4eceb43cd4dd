"""`homeport events`: a line for each, selected, as JSON, and followed over restarts of the control plane."""

import itertools
import json
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.events.notes import ServiceEvent, ServiceFacts
from controlplane.state.records import TaskRecord
from homeport.cli.errors import CannotConnect, CliError
from homeport.cli.events import _stream
from homeport.protocol import ContainerReport
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus, StopCode, TaskStatus
from tests.contract.commandline import Homeport
from tests.contract.server import ApiServer
from tests.fakes.records import a_task, an_instance


def put(server: ApiServer, *records: Any, emit: ServiceFacts | None = None) -> None:
    def body() -> None:
        with server.context.state.transaction() as transaction:
            for record in records:
                transaction.put(record)
            if emit is not None:
                transaction.emit(emit)

    server.call(body)


def lines(homeport: Homeport, *arguments: str) -> list[str]:
    """What is printed, without the times."""
    printed = homeport("events", *arguments).stdout.splitlines()
    for line in printed:
        datetime.fromisoformat(line[:23])
    return [line[25:] for line in printed]


def a_life(server: ApiServer) -> None:
    host = an_instance("0123456789abcdef", cpu=2048, memory=4096)
    task = a_task("fedcba9876543210", status=TaskStatus.PENDING, instance_id=host.id, group="service:web")
    put(server, host)
    put(server, task)
    report = ContainerReport(name="web", status=ContainerStatus.RUNNING, runtime_id="r", health=HealthStatus.UNHEALTHY)
    task = changed(server, task, status=TaskStatus.RUNNING, containers=(report,))
    task = changed(server, task, desired=DesiredStatus.STOPPED)
    changed(
        server,
        task,
        status=TaskStatus.STOPPED,
        stopped_at=1.0,
        stop_code=StopCode.ESSENTIAL_CONTAINER_EXITED,
        stopped_reason="Essential container in task exited",
        containers=(replace(report, status=ContainerStatus.STOPPED, exit_code=137, reason="OutOfMemory", health=None),),
    )
    put(server, replace(host, status="DRAINING", status_reason="disk", version=2))


def changed(server: ApiServer, task: TaskRecord, **members: Any) -> TaskRecord:
    task = replace(task, version=task.version + 1, **members)
    put(server, task)
    return task


def test_each_event_is_a_line_that_says_what_happened_and_why(server: ApiServer, homeport: Homeport) -> None:
    a_life(server)
    assert lines(homeport) == [
        "instance    0123456789ab  disconnected  2 vCPU and 4 GiB left",
        "task        web/fedcba987654  PENDING  on 0123456789ab",
        "task        web/fedcba987654  RUNNING  web: unhealthy; on 0123456789ab",
        "task        web/fedcba987654  RUNNING, to be STOPPED  web: unhealthy; on 0123456789ab",
        "task        web/fedcba987654  STOPPED  EssentialContainerExited: Essential container in task exited; "
        "web: exit 137, OutOfMemory",
        "instance    0123456789ab  DRAINING, disconnected  disk; 2 vCPU and 4 GiB left",
    ]


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"event": ServiceEvent.STEADY_STATE}, "service     web  STEADY_STATE"),
        (
            {"event": ServiceEvent.TASK_PLACEMENT_FAILURE, "reason": "RESOURCE:CPU"},
            "service     web  TASK_PLACEMENT_FAILURE  RESOURCE:CPU",
        ),
        (
            {"event": ServiceEvent.TASKS_STOPPED, "tasks": tuple("abcde")},
            "service     web  TASKS_STOPPED  a b c and 2 more",
        ),
        (
            {"event": ServiceEvent.DESIRED_COUNT_UPDATED, "desired_count": 0},
            "service     web  DESIRED_COUNT_UPDATED  to 0",
        ),
        (
            {"event": ServiceEvent.CAPACITY_PROVIDER_STEADY_STATE, "capacity_providers": ("gpu",)},
            "service     web  CAPACITY_PROVIDER_STEADY_STATE  gpu",
        ),
    ],
)
def test_what_a_service_does_is_a_line(server: ApiServer, homeport: Homeport, facts: dict[str, Any], line: str) -> None:
    put(server, emit=ServiceFacts(service="default/web", **facts))
    assert lines(homeport) == [line]


def test_a_deployment_is_shown_once(server: ApiServer, homeport: Homeport) -> None:
    from tests.fakes.services import a_deployment, a_revision, a_service

    put(server, a_revision(), a_service(), a_deployment(rollout_reason="ECS deployment in progress."))
    assert lines(homeport) == ["deployment  web  IN_PROGRESS  ECS deployment in progress."]
    assert lines(homeport, "--type", "service") == [
        "service     web  DEPLOYMENT_IN_PROGRESS  ECS deployment in progress."
    ]
    assert len(homeport("events", "--json").stdout.splitlines()) == 2


def test_events_are_selected(server: ApiServer, homeport: Homeport) -> None:
    a_life(server)
    assert len(lines(homeport, "--type", "instance", "--type", "task")) == 6
    assert len(lines(homeport, "--type", "instance")) == 2
    assert len(lines(homeport, "--service", "web")) == 4
    assert len(lines(homeport, "--task", "fed", "--cluster", "default")) == 4
    assert lines(homeport, "--cluster", "other") == []
    assert len(lines(homeport, "--pattern", '{"detail": {"lastStatus": ["RUNNING"]}}')) == 2
    assert len(lines(homeport, "--since", "5m")) == 6
    later = datetime.fromtimestamp(server.clock.now() + 60, UTC).isoformat()
    assert lines(homeport, "--since", later) == []
    assert "Event pattern is not valid" in homeport("events", "--pattern", "{", code=1).stderr


def test_with_json_each_line_is_the_document(server: ApiServer, homeport: Homeport) -> None:
    put(server, an_instance("host"))
    (line,) = homeport("events", "--json").stdout.splitlines()
    document = json.loads(line)
    assert document["detail-type"] == "ECS Container Instance State Change"
    assert document["detail"]["containerInstanceArn"].endswith("/host")


# ---------------------------------------------------------------- following


class FakeClient:
    """Answers each request for the stream with the next of its scripts; an exception in one is raised there."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.scripts = iter(scripts)
        self.asked: list[dict[str, Any]] = []

    def server_sent(
        self, path: str, query: dict[str, Any], *, follow: bool = False
    ) -> Generator[tuple[int, str, Any], None, None]:
        self.asked.append(dict(query))
        for step in next(self.scripts):
            if isinstance(step, Exception):
                raise step
            yield step


AWAY = CannotConnect("The control plane can't be reached.")
STOPPING = CliError("The control plane is stopping.", code="ServiceUnavailableException")


def told(number: int) -> tuple[int, str, Any]:
    return number, "ECS Task State Change", {"n": number}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeport.cli.absence._PAUSES_S", (0.0,))


def follow(client: FakeClient, count: int) -> list[int]:
    stream: Iterator[dict[str, Any]] = _stream(client, {"since": "1.0", "type": ("task",)}, follow=True)  # type: ignore[arg-type]
    return [document["n"] for document in itertools.islice(stream, count)]


def test_what_is_followed_goes_on_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient(
        [(6, "", None), told(7), (9, "", None), AWAY],
        [STOPPING],
        [AWAY],
        [(9, "", None), told(10)],  # whatever is between may end the answer in order
        [told(11), told(12)],
    )
    assert follow(client, 4) == [7, 10, 11, 12]
    assert [query.get("after") for query in client.asked] == [None, "9", "9", "9", "10"]
    assert [query.get("since") for query in client.asked] == ["1.0", None, None, None, None]
    assert capsys.readouterr().err.count("goes on once it is back") == 2


def test_what_is_gone_meanwhile_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient(
        [told(7), AWAY],
        [CliError("The events behind 7 are gone; the oldest that is kept is 20.", code="EventsExpired")],
        [told(20), (29, "homeport.gap", {"after": 20, "oldest": 30}), told(30), AWAY],
        [CliError("There has been no event 30 yet.", code="EventsUnknown")],
        [told(3)],
    )
    assert follow(client, 4) == [7, 20, 30, 3]
    assert [query.get("after") for query in client.asked] == [None, "7", "0", "30", None]
    said = capsys.readouterr().err
    assert "The events behind 7 are gone" in said
    assert "the events 21 to 29 are gone" in said
    assert "There has been no event 30 yet." in said


@pytest.mark.parametrize(
    "script",
    [
        [AWAY],  # it has never answered
        [told(7), CliError("refused", code="InvalidParameterException")],
        [told(7), CannotConnect("The key is refused.", code="UnrecognizedClientException")],
    ],
)
def test_what_will_not_change_ends_the_following(script: list[Any]) -> None:
    with pytest.raises(CliError):
        follow(FakeClient(script), 2)


def test_without_following_a_control_plane_that_goes_away_is_an_error() -> None:
    stream = _stream(FakeClient([told(1), AWAY]), {}, follow=False)  # type: ignore[arg-type]
    with pytest.raises(CannotConnect):
        list(stream)
