"""Whatever happens in a cluster, its counters, its hosts' and the lists agree with what the tasks themselves say."""

from itertools import count
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.definitions import register
from tests.contract.fleet import Fleet
from tests.contract.server import ApiServer

EXAMPLES: Final = 20
#: launchType -> its spelling in the names of statistics.
LAUNCH_TYPES: Final = {"EC2": "EC2", "FARGATE": "Fargate", "EXTERNAL": "External"}

#: What is done, and which task or host of those there are it is done to.
STEPS: Final = st.lists(
    st.tuples(
        st.sampled_from([*LAUNCH_TYPES, "running", "stopped", "stop", "DRAINING", "ACTIVE", "join", "leave"]),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=12,
)


class Cluster:
    """One cluster under test, its hosts and tasks by what the API said of them."""

    def __init__(self, server: ApiServer, ecs: Any, name: str) -> None:
        self.ecs = ecs
        self.fleet = Fleet(server)
        self.name = name
        self.hosts: list[str] = []
        self.tasks: list[str] = []
        ecs.create_cluster(clusterName=name)
        self.do("join", 0)

    def do(self, what: str, which: int) -> None:
        """Take a step, if there is something to take it with."""
        if what == "join":
            self.hosts.append(self.fleet.add_host(f"host-{len(self.hosts)}", cluster=self.name))
        elif what in LAUNCH_TYPES:
            if any(host["status"] == "ACTIVE" for host in self.described_hosts()):
                answer = self.ecs.run_task(cluster=self.name, taskDefinition="web", launchType=what, count=which + 1)
                self.tasks += [task["taskArn"] for task in answer["tasks"]]
        elif what in ("DRAINING", "ACTIVE"):
            host = self.hosts[which % len(self.hosts)]
            self.ecs.update_container_instances_state(cluster=self.name, containerInstances=[host], status=what)
        elif what == "leave":
            if len(self.hosts) > 1:
                gone = self.hosts.pop(which % len(self.hosts))
                self.ecs.deregister_container_instance(cluster=self.name, containerInstance=gone, force=True)
        elif self.tasks:
            self._to_a_task(what, self.tasks[which % len(self.tasks)])

    def _to_a_task(self, what: str, arn: str) -> None:
        if what == "stop":
            self.ecs.stop_task(cluster=self.name, task=arn)
        elif self.fleet.record(arn).status.name != "STOPPED":
            self.fleet.running(arn) if what == "running" else self.fleet.stopped(arn)

    def described_tasks(self) -> list[dict[str, Any]]:
        return [
            task
            for start in range(0, len(self.tasks), 100)
            for task in self.ecs.describe_tasks(cluster=self.name, tasks=self.tasks[start : start + 100])["tasks"]
        ]

    def described_hosts(self) -> list[dict[str, Any]]:
        answer = self.ecs.describe_container_instances(cluster=self.name, containerInstances=self.hosts)
        found: list[dict[str, Any]] = answer["containerInstances"]
        return found

    def listed(self, desired: str) -> set[str]:
        pages = self.ecs.get_paginator("list_tasks").paginate(cluster=self.name, desiredStatus=desired)
        return {arn for page in pages for arn in page["taskArns"]}

    def check(self) -> None:
        """Compare every number that the API gives out with the tasks."""
        tasks, hosts = self.described_tasks(), self.described_hosts()
        [cluster] = self.ecs.describe_clusters(clusters=[self.name], include=["STATISTICS"])["clusters"]
        told = {entry["name"]: int(entry["value"]) for entry in cluster["statistics"]}
        for phase in ("running", "pending"):
            having = [task for task in tasks if phase_of(task) == phase]
            assert cluster[f"{phase}TasksCount"] == len(having)
            for launch_type, spelling in LAUNCH_TYPES.items():
                expected = sum(task["launchType"] == launch_type for task in having)
                assert told[f"{phase}{spelling}TasksCount"] == expected
            for host in hosts:
                there = sum(task["containerInstanceArn"] == host["containerInstanceArn"] for task in having)
                assert host[f"{phase}TasksCount"] == there
        assert cluster["registeredContainerInstancesCount"] == len(self.hosts)
        for desired in ("RUNNING", "STOPPED"):
            assert self.listed(desired) == {task["taskArn"] for task in tasks if task["desiredStatus"] == desired}
        for host in hosts:
            held = sum(
                int(task["memory"])
                for task in tasks
                if task["lastStatus"] != "STOPPED" and task["containerInstanceArn"] == host["containerInstanceArn"]
            )
            assert memory(host["registeredResources"]) - memory(host["remainingResources"]) == held


def phase_of(task: dict[str, Any]) -> str:
    """Which of ECS's counters a task is in."""
    status = task["lastStatus"]
    return {"PROVISIONING": "pending", "PENDING": "pending", "ACTIVATING": "pending", "STOPPED": ""}.get(
        status, "running"
    )


def memory(resources: list[dict[str, Any]]) -> int:
    [amount] = [resource["integerValue"] for resource in resources if resource["name"] == "MEMORY"]
    return int(amount)


def test_every_number_agrees_with_the_tasks(server: ApiServer, ecs: Any) -> None:
    register(ecs)
    names = (f"c{number}" for number in count())

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(STEPS)
    def check(steps: list[tuple[str, int]]) -> None:
        cluster = Cluster(server, ecs, next(names))
        for what, which in steps:
            cluster.do(what, which)
            cluster.check()

    check()
