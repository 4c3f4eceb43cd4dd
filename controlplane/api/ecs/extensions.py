"""What Homeport can do and ECS can't say: tags named `homeport:*`, so that no ECS shape is bent.

| tag | on | meaning |
| --- | --- | --- |
| homeport:hosts | capacity provider | cluster query expression that selects its hosts |
| homeport:lost-after | service | seconds, 5 to 86400 (else 60), a host may be silent before its tasks are replaced |
| homeport:min-healthy-time | service | seconds, 0 to 3600 (else 5), after which a task without a check is healthy |
| homeport:progress-deadline | service | seconds, 10 to 86400 (else 600), a deployment may go on without progress |
| homeport:rebalance | service | true: tasks may be moved to a host that joins or returns, start-first |
| homeport:restart-attempt-period | task definition | seconds, 0 to 1800, instead of every restartAttemptPeriod in it |
| homeport:stop-when-isolated | service, task definition | true: at most one of each runs; an isolated host stops it |
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
