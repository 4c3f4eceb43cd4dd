"""The restart policy of a container: whether one that exited is started again in place, and why not."""

from typing import Final

from homeport.spec import RestartPolicy

__all__ = ["SHORTEST_PERIOD_S", "should_restart"]

#: Seconds between two starts, however short the policy's period: a container that ends at once, and may start again at
#: once, would keep the Engine busy, and the control plane with its reports.
SHORTEST_PERIOD_S: Final = 1.0


def should_restart(policy: RestartPolicy, exit_code: int | None, last_start: float, now: float) -> tuple[bool, str]:
    """Decide as the ECS agent does; the reason is empty when the answer is yes.

    `last_start`: epoch seconds of the last restart, or of the start if there was none. Where it lies ahead of `now`,
    the clock was set back since: it counts as long ago.
    """
    if not policy.enabled:
        return False, "it has no restart policy"
    if exit_code is None:
        return False, "its exit code is not known"
    if exit_code in policy.ignored_exit_codes:
        return False, f"its restart policy ignores exit code {exit_code}"
    ran = now - last_start
    if 0 <= ran < policy.attempt_period_s:
        return False, (
            f"it ended {ran:.0f} s after it was last started, and its restart policy asks for at least "
            f"{policy.attempt_period_s} s between attempts"
        )
    return True, ""
