"""A service's `deploymentConfiguration`: ECS's defaults and rules, and what of it Homeport can't do."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from controlplane.api.errors import InvalidParameterException

__all__ = ["merged_configuration"]

Document = Mapping[str, Any]

_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "REPLICA": {"maximumPercent": 200, "minimumHealthyPercent": 100},
    "DAEMON": {"maximumPercent": 100, "minimumHealthyPercent": 0},
}
_COMMON: Final[dict[str, Any]] = {
    "deploymentCircuitBreaker": {"enable": False, "rollback": False},
    "strategy": "ROLLING",
    "bakeTimeInMinutes": 0,
}
#: ECS gives no upper limit; beyond this a number can only be a mistake.
_MOST_PERCENT: Final = 10_000
_NEEDS_TRAFFIC: Final = "shifts traffic at a load balancer, and Homeport drives none. Use ROLLING"
#: Members that only the strategies refused here can have.
_OF_OTHER_STRATEGIES: Final = ("linearConfiguration", "canaryConfiguration")
_NO_PAUSE_STAGES: Final = ("TEST_TRAFFIC_SHIFT", "PRODUCTION_TRAFFIC_SHIFT")
_OF_LAMBDA_HOOKS: Final = ("hookTargetArn", "roleArn", "hookDetails")


def merged_configuration(
    given: Document, *, before: Document | None, scheduling_strategy: str, controller: str
) -> dict[str, Any]:
    """Return the configuration that a request's members make of the one `before` (None: of ECS's defaults).

    Members that aren't given stay as they are. Raises InvalidParameterException for what isn't allowed.
    """
    merged = {**_DEFAULTS[scheduling_strategy], **_COMMON, **(before or {}), **given}
    _check_strategy(given)
    _check_bounds(merged, scheduling_strategy, controller)
    if controller != "ECS":
        _check_task_sets(merged)
    _check_circuit_breaker(merged["deploymentCircuitBreaker"])
    _check_alarms(merged.get("alarms") or {})
    _check_bake_time(merged["bakeTimeInMinutes"])
    _check_early_success(merged.get("earlySuccessCriteria") or {}, merged["minimumHealthyPercent"])
    _check_hooks(merged.get("lifecycleHooks") or ())
    return {name: value for name, value in merged.items() if name not in _OF_OTHER_STRATEGIES}


def _check_strategy(given: Document) -> None:
    strategy = given.get("strategy") or "ROLLING"
    if strategy != "ROLLING":
        raise InvalidParameterException(
            f"deploymentConfiguration.strategy {strategy} isn't supported: it {_NEEDS_TRAFFIC}."
        )
    for member in _OF_OTHER_STRATEGIES:
        if given.get(member):
            raise InvalidParameterException(f"deploymentConfiguration.{member} isn't supported: it {_NEEDS_TRAFFIC}.")


def _check_bounds(merged: Document, scheduling_strategy: str, controller: str) -> None:
    least, most = merged["minimumHealthyPercent"], merged["maximumPercent"]
    if not 0 <= least <= 100:
        raise InvalidParameterException(
            f"deploymentConfiguration.minimumHealthyPercent must be between 0 and 100, but was {least}."
        )
    if scheduling_strategy == "DAEMON" and most > 100:
        raise InvalidParameterException(
            "The daemon scheduling strategy does not support values above 100 for maximumPercent on a deployment"
            " configuration. Change the maximumPercent value to 100, and try again"
        )
    if not 100 <= most <= _MOST_PERCENT:
        raise InvalidParameterException(
            f"deploymentConfiguration.maximumPercent must be between 100 and {_MOST_PERCENT}, but was {most}."
        )
    # Task sets are scaled by the program that drives them; the bounds then only hold for hosts that are drained.
    if least == most == 100 and controller == "ECS":
        raise InvalidParameterException(
            "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments."
        )


def _check_task_sets(merged: Document) -> None:
    """Refuse what watches over deployments where another program drives them."""
    if merged["deploymentCircuitBreaker"]["enable"]:
        raise InvalidParameterException(
            "The deployment circuit breaker can only be used for services using the rolling update (ECS) deployment"
            " type."
        )
    early = (merged.get("earlySuccessCriteria") or {}).get("enable")
    for member, given in (("earlySuccessCriteria", early), ("lifecycleHooks", merged.get("lifecycleHooks"))):
        if given:
            raise InvalidParameterException(
                f"deploymentConfiguration.{member} can only be used with the ECS deployment controller."
            )


def _check_circuit_breaker(breaker: Document) -> None:
    threshold = breaker.get("thresholdConfiguration")
    if not threshold:
        return
    kind, value = threshold["type"], threshold["value"]
    where = "deploymentCircuitBreaker.thresholdConfiguration.value"
    if value < 1:
        raise InvalidParameterException(f"{where} must be at least 1, but was {value}.")
    if kind == "BOUNDED_PERCENT" and value > 100:
        raise InvalidParameterException(f"{where} must be between 1 and 100 for BOUNDED_PERCENT, but was {value}.")


def _check_alarms(alarms: Document) -> None:
    if alarms.get("enable"):
        raise InvalidParameterException(
            "deploymentConfiguration.alarms isn't supported: there are no CloudWatch alarms here. Use"
            " deploymentCircuitBreaker, which watches the tasks themselves."
        )


def _check_bake_time(minutes: int) -> None:
    if minutes:
        raise InvalidParameterException(
            "deploymentConfiguration.bakeTimeInMinutes isn't supported with the strategy ROLLING: a deployment is"
            " complete when its tasks are healthy. How long a task must run to be so is said in the tag"
            " homeport:min-healthy-time."
        )


def _check_early_success(criteria: Document, minimum_healthy_percent: int) -> None:
    if not criteria.get("enable"):
        return
    where = "deploymentConfiguration.earlySuccessCriteria"
    for member in ("healthyPercent", "sourceServiceRevisionCleanup"):
        if member not in criteria:
            raise InvalidParameterException(f"{where}.{member} must be given when enable is true.")
    if criteria["healthyPercent"] < minimum_healthy_percent:
        raise InvalidParameterException(
            f"{where}.healthyPercent must be at least minimumHealthyPercent, {minimum_healthy_percent}, but was"
            f" {criteria['healthyPercent']}."
        )


def _check_hooks(hooks: Sequence[Document]) -> None:
    for hook in hooks:
        if hook.get("targetType", "AWS_LAMBDA") != "PAUSE":
            raise InvalidParameterException(
                "deploymentConfiguration.lifecycleHooks: targetType AWS_LAMBDA, the default, isn't supported: there is"
                " no Lambda here. Use PAUSE, and go on by ContinueServiceDeployment."
            )
        for member in _OF_LAMBDA_HOOKS:
            if hook.get(member):
                raise InvalidParameterException(
                    f"deploymentConfiguration.lifecycleHooks: {member} isn't applicable for PAUSE hooks."
                )
        stages = hook.get("lifecycleStages") or ()
        if not stages:
            raise InvalidParameterException("deploymentConfiguration.lifecycleHooks: lifecycleStages must be given.")
        for stage in stages:
            if stage in _NO_PAUSE_STAGES:
                raise InvalidParameterException(
                    f"deploymentConfiguration.lifecycleHooks: PAUSE hooks cannot be configured at the {stage} stage."
                )
