"""Tags named `homeport:*`: what ECS can't say."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from controlplane.api.ecs.extensions import restart_attempt_period_s
from homeport.spec import RestartPolicy
from tests.contract.server import ApiServer
from tests.fakes.records import a_spec

TAG = "homeport:restart-attempt-period"
POLICY = {"enabled": True, "restartAttemptPeriod": 60}
CONTAINER = {"name": "app", "image": "busybox", "memory": 64, "restartPolicy": POLICY}


def _policy(server: ApiServer) -> RestartPolicy:
    record = server.context.state.task_definitions.get("f:1")
    assert record is not None
    return a_spec(record).containers[0].restart_policy


def test_a_restart_period_shorter_than_ecs_allows_is_said_in_a_tag(server: ApiServer, ecs: Any) -> None:
    ecs.register_task_definition(family="f", containerDefinitions=[CONTAINER], tags=[{"key": TAG, "value": "1"}])
    assert _policy(server) == RestartPolicy(enabled=True, attempt_period_s=1)
    ecs.untag_resource(resourceArn=server.context.arns.task_definition("f", 1), tagKeys=[TAG])
    assert _policy(server) == RestartPolicy(enabled=True, attempt_period_s=60)


@pytest.mark.parametrize("value", ["", "-1", "1801", "soon", "1.5"])
def test_a_restart_period_that_cannot_be_is_refused_with_its_range(server: ApiServer, ecs: Any, value: str) -> None:
    revision = server.context.state.revision
    with pytest.raises(ClientError, match="must be a number of seconds from 0 to 1800") as refused:
        ecs.register_task_definition(family="f", containerDefinitions=[CONTAINER], tags=[{"key": TAG, "value": value}])
    assert refused.value.response["Error"]["Code"] == "ClientException"
    assert server.context.state.revision == revision


def test_without_the_tag_ecs_decides() -> None:
    assert restart_attempt_period_s({"team": "a"}) is None
