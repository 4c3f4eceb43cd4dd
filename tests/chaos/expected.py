"""Which services there should be, from what clients asked for and were told. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.chaos.ledger import Outcome, Request

__all__ = ["Expected", "expected_services"]

#: For so long an attempt that nobody answered may lie about, and be carried out after later ones: a kernel goes on
#: sending what a client that gave up had written, at intervals that grow with the fault.
_STALE_S = 60.0


@dataclass(slots=True)
class Expected:
    """What holds of one service: each set has what may be, since some requests were never answered."""

    exists: set[bool] = field(default_factory=lambda: {False})
    count: set[int] = field(default_factory=set)
    definition: set[str] = field(default_factory=set)


def expected_services(requests: Iterable[Request]) -> dict[str, Expected]:
    """Return what should be there, by the services' names; requests in the order of their beginnings."""
    found: dict[str, Expected] = {}
    late: dict[str, list[Request]] = {}
    for request in requests:
        match request.operation:
            case "create_service":
                name = request.sent["serviceName"]
            case "update_service" | "delete_service":
                name = request.sent["service"]
            case _:
                continue
        expected = found.setdefault(name, Expected())
        if request.unheard_at:
            late.setdefault(name, []).append(request)
        if request.outcome is Outcome.ACCEPTED:
            _carried_out(expected, request)
            for each in late.get(name, ()):
                if each is not request and request.ended_at - each.unheard_at < _STALE_S:
                    _perhaps(expected, each)
        elif request.unheard_at:
            _perhaps(expected, request)
    return found


def _carried_out(expected: Expected, request: Request) -> None:
    expected.exists = {request.operation != "delete_service"}
    if "desiredCount" in request.sent:
        expected.count = {request.sent["desiredCount"]}
    if "taskDefinition" in request.sent:
        expected.definition = {request.sent["taskDefinition"]}


def _perhaps(expected: Expected, request: Request) -> None:
    if request.operation != "update_service":
        expected.exists.add(request.operation != "delete_service")
    if "desiredCount" in request.sent:
        expected.count.add(request.sent["desiredCount"])
    if "taskDefinition" in request.sent:
        expected.definition.add(request.sent["taskDefinition"])
