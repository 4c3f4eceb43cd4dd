"""The numbers of a deployment configuration: ECS's percentages as counts of tasks."""

from fractions import Fraction
from math import ceil, floor
from typing import Any, Final, NamedTuple

from controlplane.state.service_records import ServiceRecord

__all__ = ["Bounds", "Breaker", "bounds_of", "breaker_of", "share_up"]

#: ECS's limits of a BOUNDED_PERCENT threshold.
_BOUNDED_MIN: Final = 3
_BOUNDED_MAX: Final = 200
_DEFAULT_THRESHOLD_PERCENT: Final = 50


class Bounds(NamedTuple):
    """`lower`: tasks that must stay healthy. `upper`: tasks that may be there at once."""

    lower: int
    upper: int


class Breaker(NamedTuple):
    """The deployment circuit breaker as configured. `threshold`: failures at which it opens."""

    enabled: bool
    rollback: bool
    reset_on_healthy: bool
    threshold: int


def share_up(count: int, percent: float) -> int:
    """Return `percent` of `count`, rounded up."""
    return ceil(Fraction(count) * Fraction(str(percent)) / 100)


def bounds_of(service: ServiceRecord, desired: int) -> Bounds:
    """Return the bounds for `desired` tasks: minimumHealthyPercent rounds up, maximumPercent down.

    Never less than `desired` may be there: a maximum below it would forbid the service itself.
    """
    daemon = service.scheduling_strategy == "DAEMON"
    configuration = service.deployment_configuration
    minimum = configuration.get("minimumHealthyPercent", 0 if daemon else 100)
    maximum = configuration.get("maximumPercent", 100 if daemon else 200)
    return Bounds(lower=share_up(desired, minimum), upper=max(desired, floor(Fraction(desired * maximum, 100))))


def breaker_of(service: ServiceRecord, desired: int) -> Breaker:
    """Return the circuit breaker for `desired` tasks.

    BOUNDED_PERCENT, the default, is half of them within 3 to 200; UNBOUNDED_PERCENT has no limits but 1; COUNT is the
    number itself.
    """
    given: dict[str, Any] = service.deployment_configuration.get("deploymentCircuitBreaker") or {}
    threshold: dict[str, Any] = given.get("thresholdConfiguration") or {}
    value = int(threshold.get("value", _DEFAULT_THRESHOLD_PERCENT))
    match threshold.get("type", "BOUNDED_PERCENT"):
        case "COUNT":
            count = value
        case "UNBOUNDED_PERCENT":
            count = share_up(desired, value)
        case _:
            count = min(_BOUNDED_MAX, max(_BOUNDED_MIN, share_up(desired, value)))
    return Breaker(
        enabled=bool(given.get("enable")),
        rollback=bool(given.get("rollback")),
        reset_on_healthy=given.get("resetOnHealthyTask", True) is not False,
        threshold=max(1, count),
    )
