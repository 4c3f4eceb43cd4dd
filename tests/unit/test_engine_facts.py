"""What the Engine's JSON is read as."""

from typing import Any

import pytest

from agent.engine import facts
from homeport.status import HealthStatus

SHA = "sha256:" + "a" * 64
OTHER_SHA = "sha256:" + "b" * 64


def inspected(state: dict[str, Any], **members: Any) -> dict[str, Any]:
    base = {
        "Status": "running",
        "ExitCode": 0,
        "StartedAt": "2026-11-22T12:00:00.123456789Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
        "Pid": 7,
    }
    return {"Id": "c1", "Name": "/web", "Config": {"Labels": None}, "State": base | state, "Image": SHA} | members


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T00:00:10.123456789Z", 10.123456),
        ("1970-01-01T02:00:10.5+02:00", 10.5),
    ],
)
def test_times(text: str, expected: float | None) -> None:
    assert facts.parse_time(text) == expected


@pytest.mark.parametrize(
    ("status", "exit_code", "finished"),
    [("created", None, None), ("running", None, None), ("exited", 3, 10.0), ("dead", 3, 10.0)],
)
def test_an_exit_code_is_that_of_a_run_that_is_over(status: str, exit_code: int | None, finished: float | None) -> None:
    # After a restart in place Docker still tells the end of the run before.
    ended = {"StartedAt": "1970-01-01T00:00:01Z", "FinishedAt": "1970-01-01T00:00:10Z"}
    found = facts.container_facts(inspected({"Status": status, "ExitCode": 3, **ended}))
    assert (found.exit_code, found.finished_at) == (exit_code, finished)


def test_a_run_never_ends_before_it_began() -> None:
    """As Docker 20.10 tells of a run that is over at once."""
    times = {"StartedAt": "1970-01-01T00:00:10.002Z", "FinishedAt": "1970-01-01T00:00:10Z"}
    found = facts.container_facts(inspected({"Status": "exited", "ExitCode": 0, **times}))
    assert (found.started_at, found.finished_at) == (10.002, 10.002)


@pytest.mark.parametrize(
    ("status", "exit_code", "oom_killed"),
    [("exited", 137, True), ("exited", 1, True), ("exited", 0, False), ("exited", 143, False), ("running", 0, False)],
)
def test_an_end_of_its_own_is_not_the_oom_killers(status: str, exit_code: int, oom_killed: bool) -> None:
    state = {"Status": status, "ExitCode": exit_code, "OOMKilled": True}
    assert facts.container_facts(inspected(state)).oom_killed is oom_killed


@pytest.mark.parametrize(
    ("health", "expected", "output"),
    [
        (None, None, ""),
        ({"Status": "none", "Log": None}, None, ""),
        ({"Status": "starting", "Log": []}, HealthStatus.UNKNOWN, ""),
        ({"Status": "healthy", "Log": [{"Output": "old"}, {"Output": "fine"}]}, HealthStatus.HEALTHY, "fine"),
        ({"Status": "unhealthy", "Log": [{"Output": "x" * 2000}]}, HealthStatus.UNHEALTHY, "x" * 1024),
    ],
)
def test_health(health: dict[str, Any] | None, expected: HealthStatus | None, output: str) -> None:
    found = facts.container_facts(inspected({"Health": health}))
    assert (found.health, found.health_output) == (expected, output)


def test_published_ports() -> None:
    ports = {
        "443/tcp": None,
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "::", "HostPort": "5353"}],
    }
    found = facts.container_facts(inspected({}, NetworkSettings={"Ports": ports}))
    assert [(b.container_port, b.protocol, b.host_port, b.bind_ip) for b in found.bindings] == [
        (53, "udp", 5353, "::"),
        (80, "tcp", 8080, "0.0.0.0"),
    ]


@pytest.mark.parametrize(
    ("reference", "digests", "expected"),
    [
        ("shop:1", [], None),
        ("shop:1", [f"shop@{SHA}"], SHA),
        ("docker.io/library/shop", [f"shop@{SHA}"], SHA),
        ("localhost:5000/shop:1", [f"other@{OTHER_SHA}", f"localhost:5000/shop@{SHA}"], SHA),
        (f"team/shop@{SHA}", [f"team/shop@{SHA}"], SHA),
        # Known under another repository only: better that digest than none.
        ("shop:1", [f"mirror.example/shop@{OTHER_SHA}"], OTHER_SHA),
    ],
)
def test_digests_are_those_of_the_references_own_repository(
    reference: str, digests: list[str], expected: str | None
) -> None:
    assert facts.image_facts(reference, {"Id": SHA, "RepoDigests": digests}).digest == expected


@pytest.mark.parametrize(
    ("action", "attributes", "kind", "exit_code"),
    [
        ("die", {"exitCode": "137"}, "die", 137),
        ("health_status: healthy", {}, "health", None),
        ("exec_die", {"exitCode": "1"}, None, None),
        ("start", {}, "start", None),
    ],
)
def test_events(action: str, attributes: dict[str, str], kind: str | None, exit_code: int | None) -> None:
    document = {
        "Action": action,
        "timeNano": 1_500_000_000,
        "Actor": {"ID": "c1", "Attributes": attributes | {"homeport.task": "t"}},
    }
    event = facts.engine_event(document)
    if kind is None:
        assert event is None
    else:
        assert event is not None
        assert (event.kind, event.exit_code, event.at, event.container_id) == (kind, exit_code, 1.5, "c1")
        assert event.labels == {"homeport.task": "t"}


def test_an_old_engine_has_cgroups_v1() -> None:
    info = facts.engine_info(
        {"ServerVersion": "19", "OSType": "linux", "Architecture": "x86_64", "DockerRootDir": "/d"},
        {"ApiVersion": "1.40"},
    )
    assert (info.cgroup_version, info.log_drivers, info.api_version) == ("1", (), "1.40")
