"""Which services the front door speaks, and the modules that handle their operations.

Another AWS service is one line in AWS_SERVICES and one in HANDLER_MODULES.
"""

import importlib
from collections.abc import Iterable, Mapping
from typing import Final

from controlplane.api.model import Service, load_service
from controlplane.api.registry import HANDLERS, Handler

__all__ = ["AWS_SERVICES", "HANDLER_MODULES", "HOMEPORT", "Services", "load_handlers", "load_services"]

#: Services with a model in botocore.
AWS_SERVICES: Final = ("ecs", "ssm", "sts", "logs", "secretsmanager", "sqs", "scheduler", "events")

#: Our own operations, which ECS has no like of. No model: its handlers check their input themselves.
HOMEPORT: Final = Service(
    name="homeport", target_prefix="Homeport_20261101", signing_name="homeport", title="Homeport", errors={}
)

#: Each registers its operations when it is imported.
HANDLER_MODULES: Final = (
    "controlplane.api.ecs.attributes",
    "controlplane.api.ecs.capacity_providers",
    "controlplane.api.ecs.clusters",
    "controlplane.api.ecs.container_instances",
    "controlplane.api.ecs.service_deployments",
    "controlplane.api.ecs.services",
    "controlplane.api.ecs.settings",
    "controlplane.api.ecs.tags",
    "controlplane.api.ecs.task_definitions",
    "controlplane.api.ecs.task_protection",
    "controlplane.api.ecs.task_sets",
    "controlplane.api.ecs.tasks",
    "controlplane.api.events.buses",
    "controlplane.api.events.connections",
    "controlplane.api.events.destinations",
    "controlplane.api.events.patterns",
    "controlplane.api.events.put_events",
    "controlplane.api.events.rules",
    "controlplane.api.events.tags",
    "controlplane.api.events.targets",
    "controlplane.api.homeport_drain",
    "controlplane.api.homeport_explain",
    "controlplane.api.homeport_plan",
    "controlplane.api.homeport_schedules",
    "controlplane.api.homeport_service",
    "controlplane.api.homeport_services",
    "controlplane.api.homeport_webhooks",
    "controlplane.api.in_passing",
    "controlplane.api.logs.absent",
    "controlplane.api.logs.events",
    "controlplane.api.logs.filtering",
    "controlplane.api.logs.groups",
    "controlplane.api.logs.livetail",
    "controlplane.api.logs.queries",
    "controlplane.api.logs.retention",
    "controlplane.api.logs.streams",
    "controlplane.api.logs.tags",
    "controlplane.api.scheduler",
    "controlplane.api.ssm",
    "controlplane.api.sts",
)


class Services:
    """The services, found by what a request carries."""

    def __init__(self, services: Iterable[Service]) -> None:
        self.all = tuple(services)
        self._by_prefix = {service.target_prefix: service for service in self.all if service.target_prefix}
        self._by_signing_name = {service.signing_name: service for service in self.all}

    def by_target_prefix(self, prefix: str) -> Service | None:
        """Return the service of an X-Amz-Target prefix."""
        return self._by_prefix.get(prefix)

    def by_signing_name(self, name: str) -> Service | None:
        """Return the service of a credential scope."""
        return self._by_signing_name.get(name)


def load_services() -> Services:
    """Load every service's model."""
    return Services([*(load_service(name) for name in AWS_SERVICES), HOMEPORT])


def load_handlers(services: Services) -> Mapping[tuple[str, str], Handler]:
    """Import every handler module and return the table of operations.

    Raises RuntimeError if a handler is registered for an operation that its service's model doesn't have.
    """
    for module in HANDLER_MODULES:
        importlib.import_module(module)
    by_name = {service.name: service for service in services.all}
    for service_name, operation in HANDLERS:
        service = by_name.get(service_name)
        if service is None or (service.operations is not None and operation not in service.operations):
            raise RuntimeError(f"a handler is registered for {service_name}.{operation}, which no model has")
    return HANDLERS
