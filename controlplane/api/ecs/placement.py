"""A request's placement members, checked and brought into the scheduler's words; and its refusals as ECS's failures."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from controlplane.api.ecs.views import failure
from controlplane.api.errors import InvalidParameterException
from controlplane.context import Context
from controlplane.scheduling.language import QueryError, parse_query
from controlplane.scheduling.model import DEFAULT_STRATEGY, Constraint, Demand, Refusal, Strategy
from homeport.spec import Resources

__all__ = ["MAX_FAILURES", "constraints_of", "demand_of", "failures_of", "strategy_of"]

Document = Mapping[str, Any]

_MAX_CONSTRAINTS: Final = 10
_MAX_STRATEGIES: Final = 5
#: Hosts named in one answer's `failures`; a cluster can have thousands.
MAX_FAILURES: Final = 100

_ARCHITECTURES: Final = {"X86_64": "x86_64", "ARM64": "arm64"}
_ATTRIBUTE: Final = "attribute:"


def demand_of(
    definition: Document,
    resources: Resources,
    *,
    group: str,
    constraints: Sequence[Document] = (),
    strategy: Sequence[Document] = (),
) -> Demand:
    """Say what a task asks of its host: what its definition requires, and what the request adds.

    Raises InvalidParameterException for constraints or strategies that can't be used.
    """
    return Demand(
        resources=resources,
        group=group,
        constraints=constraints_of([*(definition.get("placementConstraints") or ()), *constraints]),
        strategy=strategy_of(strategy),
        attributes=_required_attributes(definition.get("runtimePlatform") or {}),
    )


def constraints_of(constraints: Sequence[Document]) -> tuple[Constraint, ...]:
    """Check placement constraints, expressions included. Raises InvalidParameterException."""
    if len(constraints) > _MAX_CONSTRAINTS:
        raise InvalidParameterException(
            f"A task can have at most {_MAX_CONSTRAINTS} placement constraints, but has {len(constraints)}."
        )
    found = []
    for constraint in constraints:
        kind, expression = constraint.get("type"), constraint.get("expression") or ""
        if kind == "memberOf":
            check_expression(expression)
            found.append(Constraint("memberOf", expression))
        elif kind == "distinctInstance":
            if expression:
                raise InvalidParameterException("A distinctInstance placement constraint can't have an expression.")
            found.append(Constraint("distinctInstance"))
        else:
            raise InvalidParameterException("A placement constraint's type must be memberOf or distinctInstance.")
    return tuple(found)


def check_expression(expression: str) -> None:
    """Raise InvalidParameterException, with the position, if a cluster query expression can't be used."""
    try:
        parse_query(expression)
    except QueryError as err:
        raise InvalidParameterException(f"Invalid expression '{expression:.200}': {err}.") from err


def strategy_of(strategies: Sequence[Document]) -> tuple[Strategy, ...]:
    """Check placement strategies; without any, spread by host. Raises InvalidParameterException."""
    if len(strategies) > _MAX_STRATEGIES:
        raise InvalidParameterException(
            f"A task can have at most {_MAX_STRATEGIES} placement strategies, but has {len(strategies)}."
        )
    return tuple(map(_strategy, strategies)) or DEFAULT_STRATEGY


def _strategy(strategy: Document) -> Strategy:
    kind, field = strategy.get("type"), strategy.get("field") or ""
    match kind:
        case "random":
            if field:
                raise InvalidParameterException("The random placement strategy has no field.")
            return Strategy("random")
        case "binpack":
            if field.lower() not in ("cpu", "memory"):
                raise InvalidParameterException(f"binpack's field must be cpu or memory, but is '{field}'.")
            return Strategy("binpack", field.lower())
        case "spread":
            if field.lower() in ("instanceid", "host"):
                return Strategy("spread", "host")
            name = field.removeprefix(_ATTRIBUTE)
            if name == field or not name:
                raise InvalidParameterException(
                    f"spread's field must be instanceId, host or attribute:NAME, but is '{field}'."
                )
            return Strategy("spread", name)
        case _:
            raise InvalidParameterException("A placement strategy's type must be random, spread or binpack.")


def _required_attributes(platform: Document) -> dict[str, str]:
    """What a definition's runtimePlatform requires of the host, under ECS's attribute names."""
    required = {}
    if architecture := platform.get("cpuArchitecture"):
        required["ecs.cpu-architecture"] = _ARCHITECTURES.get(architecture, architecture.lower())
    if family := platform.get("operatingSystemFamily"):
        required["ecs.os-type"] = "windows" if family.startswith("WINDOWS") else family.lower()
    return required


def failures_of(context: Context, cluster: str, refusals: Iterable[Refusal]) -> list[dict[str, str]]:
    """The refusals as ECS's `failures`, at most MAX_FAILURES."""
    return [
        failure(context.arns.container_instance(cluster, refusal.instance_id), refusal.reason, refusal.detail)
        for refusal, _ in zip(refusals, range(MAX_FAILURES), strict=False)
    ]
