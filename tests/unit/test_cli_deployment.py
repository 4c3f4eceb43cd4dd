"""Watching a deployment: through restarts of the control plane, up to a limit."""

from typing import Any, cast

import pytest

from homeport.cli.client import Client
from homeport.cli.deployment import watch_until_over
from homeport.cli.errors import CannotConnect, CliError

SERVICE: dict[str, Any] = {
    "name": "web",
    "cluster": "default",
    "serviceArn": "arn",
    "state": "deploying",
    "desired": 1,
    "running": 1,
    "pending": 0,
}


def answer(status: str, *events: str) -> dict[str, Any]:
    over = status in ("SUCCESSFUL", "STOPPED")
    deployment: dict[str, Any] = {
        "id": "ecs-svc/1",
        "taskDefinition": "web:1",
        "status": status,
        "statusReason": None,
        "rolloutStateReason": "It was stopped." if status == "STOPPED" else None,
        "rollbackOf": None,
        "createdAt": 100.0,
        "finishedAt": 102.5 if over else None,
        "seconds": 2.5,
        "healthyTasks": 1,
        "lastFailure": None,
        "hooks": [],
        "budget": {},
        "tasks": [],
    }
    told = [{"number": n, "at": 99.0 + n, "message": f"(service web) {text}"} for n, text in enumerate(events)]
    return {"service": SERVICE, "deployments": [deployment], "events": told}


class Scripted:
    """Answers each question with the next of its answers, or raises it."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self._answers = list(answers)

    def own(self, operation: str, **parameters: Any) -> dict[str, Any]:
        assert (operation, parameters) == ("DescribeDeployments", {"service": "arn", "deployment": "ecs-svc/1"})
        found = self._answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def watch(*answers: dict[str, Any] | Exception, timeout_s: float = 20.0, as_json: bool = False) -> None:
    client = cast("Client", Scripted(*answers))
    watch_until_over(client, SERVICE, "ecs-svc/1", timeout_s, as_json=as_json)


def test_a_control_plane_that_is_restarted_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    watch(
        answer("IN_PROGRESS", "before", "one"),
        CannotConnect("It is restarted."),
        answer("SUCCESSFUL", "before", "one", "two"),
    )
    out = capsys.readouterr().out
    assert [line[25:] for line in out.split("\n\n")[0].splitlines()] == ["one", "two"], "each once, none from before"
    assert "deployment ecs-svc/1 of web:1: SUCCESSFUL after 2.5 s" in out


def test_a_control_plane_that_stays_away_is_not_waited_for_without_end() -> None:
    with pytest.raises(CannotConnect):
        watch(CannotConnect("It is gone."), timeout_s=0.0)


def test_without_a_status_reason_the_rollouts_is_told() -> None:
    with pytest.raises(CliError, match=r"ended STOPPED: It was stopped\."):
        watch(answer("STOPPED"), as_json=True)
