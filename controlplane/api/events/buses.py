"""EventBridge's event buses: there is the default one."""

from controlplane.api.events.common import BUS, check_bus
from controlplane.api.registry import Document, operation
from controlplane.context import Context

__all__: list[str] = []


@operation("events", "DescribeEventBus")
def describe_event_bus(context: Context, request: Document) -> Document:
    """Describe the default event bus; there is no other."""
    check_bus(context, {"EventBusName": request.get("Name", BUS)})
    return _bus(context)


@operation("events", "ListEventBuses")
def list_event_buses(context: Context, request: Document) -> Document:
    """List the default event bus."""
    return {"EventBuses": [_bus(context)] if BUS.startswith(request.get("NamePrefix", "")) else []}


def _bus(context: Context) -> Document:
    return {"Name": BUS, "Arn": context.arns.event_bus(BUS)}
