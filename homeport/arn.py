"""Amazon Resource Names of the things Homeport keeps, always in ECS's long form with the cluster's name inside."""

import re
from typing import Final, NamedTuple

from homeport.errors import InvalidArn

__all__ = ["ArnFactory", "ParsedArn", "parse_arn"]

_ARN: Final = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):(?P<service>[a-z0-9-]+):(?P<region>[A-Za-z0-9-]*):(?P<account>\d{12}|)"
    r":(?P<type>[a-z-]+)/(?P<path>.+)"
)


class ParsedArn(NamedTuple):
    """The parts of an ARN. `path` is what follows `type/`, e.g. `CLUSTER/ID` for a task."""

    service: str
    region: str
    account: str
    type: str
    path: str

    @property
    def name(self) -> str:
        """The last part of the path: a task's id, a cluster's name, `family:revision`."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def cluster(self) -> str | None:
        """The cluster's name if the path carries one (tasks, services, container instances)."""
        head, separator, _ = self.path.partition("/")
        return head if separator else None


def parse_arn(text: str, *, expected_type: str | None = None) -> ParsedArn:
    """Take an ARN apart.

    Raises InvalidArn if `text` isn't one, or its resource type isn't `expected_type`.
    """
    match = _ARN.fullmatch(text)
    if match is None:
        raise InvalidArn(f"not an ARN: {text!r}")
    parsed = ParsedArn(match["service"], match["region"], match["account"], match["type"], match["path"])
    if expected_type is not None and parsed.type != expected_type:
        raise InvalidArn(f"expected an ARN of type {expected_type}, got {text!r}")
    return parsed


class ArnFactory(NamedTuple):
    """Makes ARNs in the configured region and 12-digit account."""

    region: str
    account: str

    def _ecs(self, path: str) -> str:
        return f"arn:aws:ecs:{self.region}:{self.account}:{path}"

    # The first five without `_ecs`: each task's answer has them all.

    def cluster(self, name: str) -> str:
        """`cluster/NAME`."""
        return f"arn:aws:ecs:{self.region}:{self.account}:cluster/{name}"

    def task_definition(self, family: str, revision: int) -> str:
        """`task-definition/FAMILY:REVISION`."""
        return f"arn:aws:ecs:{self.region}:{self.account}:task-definition/{family}:{revision}"

    def task(self, cluster: str, task_id: str) -> str:
        """`task/CLUSTER/ID`."""
        return f"arn:aws:ecs:{self.region}:{self.account}:task/{cluster}/{task_id}"

    def container(self, cluster: str, task_id: str, container_id: str) -> str:
        """`container/CLUSTER/TASK-ID/UUID`."""
        return f"arn:aws:ecs:{self.region}:{self.account}:container/{cluster}/{task_id}/{container_id}"

    def container_instance(self, cluster: str, instance_id: str) -> str:
        """`container-instance/CLUSTER/ID`."""
        return f"arn:aws:ecs:{self.region}:{self.account}:container-instance/{cluster}/{instance_id}"

    def capacity_provider(self, name: str) -> str:
        """`capacity-provider/NAME`."""
        return self._ecs(f"capacity-provider/{name}")

    def service(self, cluster: str, name: str) -> str:
        """`service/CLUSTER/NAME`."""
        return self._ecs(f"service/{cluster}/{name}")

    def service_deployment(self, cluster: str, service: str, deployment_id: str) -> str:
        """`service-deployment/CLUSTER/SERVICE/ID`."""
        return self._ecs(f"service-deployment/{cluster}/{service}/{deployment_id}")

    def service_revision(self, cluster: str, service: str, revision_id: str) -> str:
        """`service-revision/CLUSTER/SERVICE/ID`."""
        return self._ecs(f"service-revision/{cluster}/{service}/{revision_id}")

    def task_set(self, cluster: str, service: str, task_set_id: str) -> str:
        """`task-set/CLUSTER/SERVICE/ID`, with an id of the form `ecs-svc/DIGITS`."""
        return self._ecs(f"task-set/{cluster}/{service}/{task_set_id}")

    def schedule(self, group: str, name: str) -> str:
        """EventBridge Scheduler's `schedule/GROUP/NAME`."""
        return f"arn:aws:scheduler:{self.region}:{self.account}:schedule/{group}/{name}"

    def schedule_group(self, name: str) -> str:
        """EventBridge Scheduler's `schedule-group/NAME`."""
        return f"arn:aws:scheduler:{self.region}:{self.account}:schedule-group/{name}"

    def rule(self, name: str) -> str:
        """EventBridge's `rule/NAME`, on the default event bus."""
        return f"arn:aws:events:{self.region}:{self.account}:rule/{name}"

    def event_bus(self, name: str) -> str:
        """EventBridge's `event-bus/NAME`."""
        return f"arn:aws:events:{self.region}:{self.account}:event-bus/{name}"

    def connection(self, name: str, connection_id: str) -> str:
        """EventBridge's `connection/NAME/UUID`."""
        return f"arn:aws:events:{self.region}:{self.account}:connection/{name}/{connection_id}"

    def api_destination(self, name: str, destination_id: str) -> str:
        """EventBridge's `api-destination/NAME/UUID`."""
        return f"arn:aws:events:{self.region}:{self.account}:api-destination/{name}/{destination_id}"

    def log_group(self, name: str) -> str:
        """CloudWatch Logs' `log-group:NAME`, without the `:*` that DescribeLogGroups hangs on it."""
        return f"arn:aws:logs:{self.region}:{self.account}:log-group:{name}"

    def log_stream(self, group: str, name: str) -> str:
        """CloudWatch Logs' `log-group:GROUP:log-stream:NAME`."""
        return f"{self.log_group(group)}:log-stream:{name}"

    def root(self) -> str:
        """The account's own identity, as STS GetCallerIdentity gives it."""
        return f"arn:aws:iam::{self.account}:root"
