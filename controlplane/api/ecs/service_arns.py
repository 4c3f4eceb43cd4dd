"""ARNs of what belongs to a service: its deployments, revisions and task sets; and finding them again by ARN."""

from controlplane.api.ecs.lookup import local_path
from controlplane.context import Context
from controlplane.state.service_records import DeploymentRecord, RevisionRecord, ServiceRecord, TaskSetRecord

__all__ = [
    "find_deployment",
    "find_revision",
    "revision_arn",
    "service_arn",
    "service_deployment_arn",
    "split_key",
    "task_set_arn",
]


def split_key(service_key: str) -> tuple[str, str]:
    """Return cluster and name from a service's key, which deployments, revisions and task sets carry."""
    cluster, _, name = service_key.partition("/")
    return cluster, name


def service_arn(context: Context, record: ServiceRecord) -> str:
    """`service/CLUSTER/NAME`."""
    return context.arns.service(record.cluster, record.name)


def service_deployment_arn(context: Context, record: DeploymentRecord) -> str:
    """`service-deployment/CLUSTER/SERVICE/ID`."""
    return context.arns.service_deployment(*split_key(record.service), record.arn_id)


def revision_arn(context: Context, record: RevisionRecord) -> str:
    """`service-revision/CLUSTER/SERVICE/ID`."""
    return context.arns.service_revision(*split_key(record.service), record.id)


def task_set_arn(context: Context, record: TaskSetRecord) -> str:
    """`task-set/CLUSTER/SERVICE/ecs-svc/DIGITS`."""
    return context.arns.task_set(*split_key(record.service), record.id)


def find_deployment(context: Context, arn: str) -> DeploymentRecord | None:
    """Return the deployment of a service deployment's ARN; None if there is none, or it is a rollback."""
    key, _, arn_id = (local_path(context, arn, "service-deployment") or "").rpartition("/")
    for record in context.state.deployments.where("arn_id", arn_id):
        if record.service == key and not record.rollback_of:
            return record
    return None


def find_revision(context: Context, arn: str) -> RevisionRecord | None:
    """Return the revision of an ARN; None if there is none."""
    key, _, revision_id = (local_path(context, arn, "service-revision") or "").rpartition("/")
    record = context.state.revisions.get(revision_id)
    return record if record is not None and record.service == key else None
