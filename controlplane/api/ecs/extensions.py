"""What Homeport can do and ECS can't say: tags named `homeport:*`, so that no ECS shape is bent.

| tag | on | meaning |
| --- | --- | --- |
| homeport:attempt | task (set here) | which attempt of an order it is, from 2 on |
| homeport:cluster | SSM activation | the cluster that its hosts join, else default |
| homeport:exclusive | task definition, task | name of a group in the cluster: one task of it runs at a time |
| homeport:exclusive-policy | task definition, task | wait (default), skip or replace, if the group is taken |
| homeport:hosts | capacity provider | cluster query expression that selects its hosts |
| homeport:lost-after | service, task definition, task | seconds, 5 to 86400 (else 60), of a host's silence |
| homeport:missed | schedule group, rule, target's tags | run-once (default) or skip what was missed while down |
| homeport:min-healthy-time | service | seconds, 0 to 3600 (else 5), after which a task without a check is healthy |
| homeport:overlap | schedule group, rule, target's tags | allow (default), skip or replace, if earlier tasks run |
| homeport:progress-deadline | service | seconds, 10 to 86400 (else 600), a deployment may go on without progress |
| homeport:rebalance | service | true: tasks may be moved to a host that joins or returns, start-first |
| homeport:restart-attempt-period | task definition | seconds, 0 to 1800, instead of every restartAttemptPeriod in it |
| homeport:retries | task definition, task | 0 to 10: how often a task that fails is run again |
| homeport:retry-of | task (set here) | id of the task that it is another attempt of |
| homeport:start-timeout | task definition, task | time, 1 s to 30 d, from its placement until it runs |
| homeport:stop-when-isolated | service, task definition, task | true: an isolated host stops it, so one runs at most |
| homeport:timeout | task definition, task | time, 1 s to 30 d, that it may run |
| homeport:wait-timeout | task definition, task | time, 1 s to 30 d, that it may wait for a place |
Attributes of hosts (PutAttributes, or the agent's `--attribute`) that Homeport itself goes by:

| attribute | meaning |
| --- | --- |
| homeport.capacity-provider | the capacity provider whose host it is, unless that one has the tag homeport:hosts |
| homeport.preemptible | true: it takes the tasks of FARGATE_SPOT |

CreateCapacityProvider's autoScalingGroupArn may be any text: it is kept and shown, and nothing scales.
"""

from collections.abc import Mapping
from typing import Final

from controlplane.api.errors import ClientException

__all__ = ["RESTART_ATTEMPT_PERIOD", "restart_attempt_period_s"]

RESTART_ATTEMPT_PERIOD: Final = "homeport:restart-attempt-period"
#: ECS's own upper bound; its lower one is 60.
_MAX_PERIOD_S: Final = 1800


def restart_attempt_period_s(tags: Mapping[str, str]) -> int | None:
    """Return the restart period that a task definition's tags ask for; None without the tag.

    Raises ClientException if the value isn't a number of seconds in the range.
    """
    text = tags.get(RESTART_ATTEMPT_PERIOD)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > _MAX_PERIOD_S:
        raise ClientException(
            f"Tag {RESTART_ATTEMPT_PERIOD} must be a number of seconds from 0 to {_MAX_PERIOD_S}, but was '{text:.50}'."
        )
    return int(text)
