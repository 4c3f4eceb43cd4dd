"""The table of operations: (service, operation) -> handler, filled by a decorator.

A handler takes the Context and the request, already validated against the AWS model (unknown members dropped), and
returns the response document, or an EventStream, or raises ApiError. It is a plain function where it can be: it then
runs in one event-loop turn and is atomic. The front door awaits durability of what it read or wrote before anything is
answered.
"""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

from controlplane.api.eventstream import EventStream
from controlplane.context import Context

__all__ = ["CALLER", "HANDLERS", "Answer", "Document", "Handler", "operation"]

Document = dict[str, Any]
Answer = Document | EventStream
Handler = Callable[[Context, Document], Answer | Awaitable[Answer]]

#: The access key id that signed the request being handled, for stories; "" outside a request.
CALLER: Final[ContextVar[str]] = ContextVar("caller", default="")

HANDLERS: dict[tuple[str, str], Handler] = {}


def operation(service: str, name: str) -> Callable[[Handler], Handler]:
    """Register a handler for an operation, e.g. `@operation("ecs", "CreateCluster")`."""

    def register(handler: Handler) -> Handler:
        if (service, name) in HANDLERS:
            raise ValueError(f"two handlers for {service}.{name}")
        HANDLERS[service, name] = handler
        return handler

    return register
