"""EventBridge: trying an event pattern."""

from typing import Final

import msgspec

from controlplane.api.errors import ApiError
from controlplane.api.registry import Document, operation
from controlplane.api.trigger_arguments import invalid
from controlplane.context import Context
from controlplane.events.pattern import InvalidPattern, compile_pattern

__all__ = ["invalid_pattern"]

_MANDATORY: Final = ("id", "account", "source", "time", "region", "resources", "detail-type")


@operation("events", "TestEventPattern")
def try_pattern(_: Context, request: Document) -> Document:
    """Tell whether an event matches a pattern."""
    try:
        event = msgspec.json.decode(request["Event"])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise invalid(f"Parameter Event is not valid. Reason: it is not valid JSON: {error}.") from error
    if not isinstance(event, dict):
        raise invalid("Parameter Event is not valid. Reason: it must be a JSON object.")
    if lacking := [name for name in _MANDATORY if name not in event]:
        raise invalid(f"Parameter Event is not valid. Reason: it must have {', '.join(lacking)}.")
    try:
        return {"Result": compile_pattern(request["EventPattern"]).matches(event)}
    except InvalidPattern as error:
        raise invalid_pattern(error) from error


def invalid_pattern(error: InvalidPattern) -> ApiError:
    """Make an InvalidEventPatternException."""
    return ApiError(f"Event pattern is not valid. Reason: {error}.", code="InvalidEventPatternException")
