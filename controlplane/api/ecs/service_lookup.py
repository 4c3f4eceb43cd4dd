"""Finding a service by name or by ARN, in the long form (with the cluster's name) or the short one."""

from controlplane.api.ecs.lookup import local_path
from controlplane.api.errors import ServiceNotFoundException
from controlplane.context import Context
from controlplane.state.service_records import ServiceRecord

__all__ = ["find_service", "require_service", "service_reference_arn"]


def find_service(context: Context, cluster: str, reference: str) -> ServiceRecord | None:
    """Return the cluster's service of that name or ARN, whatever its status; None if there is none.

    An ARN that names another cluster, account or region names another service: it isn't found here.
    """
    name = _name(context, cluster, reference)
    return None if name is None else context.state.services.get(f"{cluster}/{name}")


def require_service(context: Context, cluster: str, reference: str) -> ServiceRecord:
    """Return the service as `find_service` does. Raises ServiceNotFoundException if there is none."""
    service = find_service(context, cluster, reference)
    if service is None:
        raise ServiceNotFoundException
    return service


def service_reference_arn(context: Context, cluster: str, reference: str) -> str:
    """Return the ARN a failure shows for a service that was asked for."""
    return reference if reference.startswith("arn:") else context.arns.service(cluster, reference)


def _name(context: Context, cluster: str, reference: str) -> str | None:
    if not reference.startswith("arn:"):
        return reference if "/" not in reference else None
    path = local_path(context, reference, "service")
    if path is None:
        return None
    named, _, name = path.rpartition("/")
    return name if named in (cluster, "") else None
