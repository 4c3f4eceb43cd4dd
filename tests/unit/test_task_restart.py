"""The restart policy, as the ECS agent decides it."""

import pytest

from agent.task.restart import should_restart
from homeport.spec import RestartPolicy

POLICY = RestartPolicy(enabled=True, ignored_exit_codes=(0, 7), attempt_period_s=60)


@pytest.mark.parametrize(
    ("policy", "exit_code", "ran_s", "expected", "reason"),
    [
        (POLICY, 1, 60.0, True, ""),
        (POLICY, 137, 3600.0, True, ""),
        (POLICY, 1, 59.9, False, "at least 60 s"),
        (POLICY, 7, 3600.0, False, "ignores exit code 7"),
        (POLICY, 0, 3600.0, False, "ignores exit code 0"),
        (POLICY, None, 3600.0, False, "exit code is not known"),
        (RestartPolicy(), 1, 3600.0, False, "no restart policy"),
        (RestartPolicy(enabled=True), 0, 300.0, True, ""),
    ],
)
def test_policy(policy: RestartPolicy, exit_code: int | None, ran_s: float, expected: bool, reason: str) -> None:
    verdict, why = should_restart(policy, exit_code, 1000.0, 1000.0 + ran_s)
    assert verdict is expected
    assert reason in why
    assert bool(why) is not verdict
