"""Services over three hosts, each with an Engine and a network of its own: rolling, failing, losing, draining."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Installation, eventually, installation
from tests.e2e.hosts import EngineHost, add_engine_host, lan
from tests.e2e.services import described, events, http_load, live_tasks, steady, web

pytestmark = pytest.mark.e2e

_numbers = itertools.count(1)

ROLLBACK = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}


class Site:
    """A control plane and three hosts. Each test has a service, and a family, of its own: `name`."""

    name = ""

    def __init__(self, fleet: Installation, hosts: list[EngineHost], image: str) -> None:
        self.fleet = fleet
        self.hosts = hosts
        self.image = image
        self.ecs = fleet.ecs
        self.addresses = {self.arn(host): host.address for host in hosts}

    def arn(self, host: EngineHost) -> str:
        (found,) = self.ecs.describe_container_instances(containerInstances=[self.fleet.instance_id(host.name)])[
            "containerInstances"
        ]
        arn: str = found["containerInstanceArn"]
        return arn

    def connected(self, host: EngineHost) -> bool:
        (found,) = self.ecs.describe_container_instances(containerInstances=[self.fleet.instance_id(host.name)])[
            "containerInstances"
        ]
        return bool(found["agentConnected"])

    def create(
        self, count: int, container: dict[str, Any], *, tags: dict[str, str] | None = None, **members: Any
    ) -> dict[str, Any]:
        """Create the service and wait until it is steady. A second is enough to count as healthy."""
        definition = self.fleet.register(self.name, container)
        all_tags = {"homeport:min-healthy-time": "1", **(tags or {})}
        replicas = {} if members.get("schedulingStrategy") == "DAEMON" else {"desiredCount": count}
        self.ecs.create_service(
            serviceName=self.name,
            taskDefinition=definition,
            tags=[{"key": key, "value": value} for key, value in all_tags.items()],
            **replicas,
            **members,
        )
        return steady(self.fleet, self.name)

    def update(self, container: dict[str, Any], **members: Any) -> str:
        """Roll out another definition; return the new deployment's id."""
        definition = self.fleet.register(self.name, container)
        answer = self.ecs.update_service(service=self.name, taskDefinition=definition, **members)
        primary: str = answer["service"]["deployments"][0]["id"]
        return primary

    def running(self) -> list[str]:
        """The ids of all containers that run on any host."""
        return [each for host in self.hosts for each in self.fleet.containers("status=running", name=host.name)]

    def versions(self) -> Counter[str]:
        """How many tasks of each revision of the family should be running."""
        return Counter(task["taskDefinitionArn"].rsplit(":", 1)[1] for task in live_tasks(self.fleet, self.name))

    def remove(self) -> None:
        self.ecs.delete_service(service=self.name, force=True)
        eventually(lambda: described(self.fleet, self.name)["status"] == "INACTIVE", within_s=60)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, busybox: str) -> Iterator[Site]:
    directory: Path = tmp_path_factory.mktemp("site")
    with lan() as network, installation(directory, listen=f"{network.gateway}:0") as fleet:
        fleet.start_control_plane()
        yield Site(fleet, [add_engine_host(fleet, network, busybox) for _ in range(3)], busybox)


@pytest.fixture(autouse=True)
def _a_service_of_its_own(site: Site) -> Iterator[None]:
    site.name = f"web-{next(_numbers)}"
    yield
    site.remove()
    eventually(lambda: not site.running(), within_s=60)


def test_ten_replicas_are_rolled_under_load_and_every_request_is_answered(site: Site) -> None:
    site.create(10, web(site.image, "one"))
    spread = Counter(task["containerInstanceArn"] for task in live_tasks(site.fleet, site.name))
    assert sorted(spread.values()) == [3, 3, 4]
    with http_load(site.fleet, site.name, site.addresses) as load:
        site.update(web(site.image, "two"))
        steady(site.fleet, site.name)
        eventually(lambda: load.answers["two"] > 100)
    assert load.failures == []
    assert load.answers["one"] > 0
    assert site.versions() == {"2": 10}
    assert len(site.running()) == 10


@pytest.mark.parametrize(
    ("broken", "because"),
    [
        ({"image": "127.0.0.1:9/none:1"}, "CannotPullContainerError"),
        ({"command": ["exit 3"]}, "Essential container in task exited"),
        (
            {"healthCheck": {"command": ["CMD-SHELL", "false"], "interval": 5, "retries": 1, "timeout": 2}},
            "Task failed container health checks",
        ),
    ],
    ids=["image", "exits", "never-healthy"],
)
def test_a_broken_revision_is_rolled_back_and_the_old_one_never_noticed(
    site: Site, broken: dict[str, Any], because: str
) -> None:
    site.create(3, web(site.image, "one"), deploymentConfiguration=ROLLBACK)
    before = {task["taskArn"] for task in live_tasks(site.fleet, site.name)}
    with http_load(site.fleet, site.name, site.addresses) as load:
        failed = site.update({**web(site.image, "two"), **broken})
        eventually(lambda: described(site.fleet, site.name)["deployments"][0]["id"] != failed, within_s=120)
        service = steady(site.fleet, site.name)
    assert load.failures == []
    assert load.answers["two"] == 0 or "healthCheck" in broken  # clients here don't ask for health
    assert service["taskDefinition"].endswith(":1")
    assert {task["taskArn"] for task in live_tasks(site.fleet, site.name)} == before
    (deployment,) = [
        each
        for each in site.ecs.list_service_deployments(service=site.name)["serviceDeployments"]
        if each["status"] == "ROLLBACK_SUCCESSFUL"
    ]
    (told,) = site.ecs.describe_service_deployments(serviceDeploymentArns=[deployment["serviceDeploymentArn"]])[
        "serviceDeployments"
    ]
    assert because in told["rollback"]["reason"] + told.get("statusReason", "")
    said = " ".join(events(site.fleet, site.name))
    assert "deployment failed" in said
    assert "rolling back" in said


@pytest.mark.parametrize("victim", ["agent", "engine", "control-plane"])
def test_kill_9_in_the_middle_of_a_deployment_ends_with_exactly_the_new_tasks(site: Site, victim: str) -> None:
    site.create(6, web(site.image, "one"), deploymentConfiguration={"maximumPercent": 150})
    site.update(web(site.image, "two"))
    eventually(lambda: site.versions()["2"] >= 1)
    host = site.hosts[0]
    if victim == "agent":
        daemon = next(d for d in reversed(site.fleet.daemons) if d.name == host.name)
        daemon.kill()
        site.fleet.start_agent(host.name, docker_host=host.engine.docker_host, prefix=host.prefix)
    elif victim == "engine":
        host.engine.kill()
        host.start_engine()
    else:
        site.fleet.control_plane.kill()
        site.fleet.start_control_plane()
    steady(site.fleet, site.name, within_s=120)
    assert site.versions() == {"2": 6}
    eventually(lambda: len(site.running()) == 6)


def test_a_host_lost_for_too_long_is_replaced_and_on_its_return_nothing_is_double(site: Site) -> None:
    site.create(6, web(site.image, "one"), tags={"homeport:lost-after": "6"})
    host = site.hosts[0]
    lost = {t["taskArn"] for t in live_tasks(site.fleet, site.name) if t["containerInstanceArn"] == site.arn(host)}
    assert len(lost) == 2
    host.cut()
    eventually(lambda: not site.connected(host))
    others = site.hosts[1:]
    eventually(
        lambda: sum(len(site.fleet.containers("status=running", name=each.name)) for each in others) == 6, within_s=60
    )
    service = eventually(lambda: s if (s := described(site.fleet, site.name))["runningCount"] == 6 else None)
    assert service is not None
    assert len(site.fleet.containers("status=running", name=host.name)) == 2  # they run on, unheard
    host.mend()
    eventually(lambda: site.connected(host), within_s=60)
    steady(site.fleet, site.name)
    eventually(lambda: len(site.running()) == 6, within_s=60)
    kept = {task["taskArn"] for task in live_tasks(site.fleet, site.name)}
    assert len(kept) == 6
    assert lost <= kept  # they have run longest


def test_a_revision_rolled_out_while_a_host_was_away_wins_on_its_return(site: Site) -> None:
    site.create(3, web(site.image, "one"), tags={"homeport:lost-after": "5"})
    host = site.hosts[0]
    host.cut()
    eventually(lambda: not site.connected(host))
    site.update(web(site.image, "two"))
    steady(site.fleet, site.name)
    host.mend()
    eventually(lambda: site.connected(host), within_s=60)
    eventually(lambda: len(site.running()) == 3, within_s=60)
    assert site.versions() == {"2": 3}


def test_draining_moves_a_services_tasks_without_a_gap(site: Site) -> None:
    site.create(3, web(site.image, "one"))
    host = site.hosts[0]
    instance = site.fleet.instance_id(host.name)
    try:
        with http_load(site.fleet, site.name, site.addresses) as load:
            site.ecs.update_container_instances_state(containerInstances=[instance], status="DRAINING")
            eventually(lambda: not site.fleet.containers("status=running", name=host.name), within_s=60)
            steady(site.fleet, site.name)
        assert load.failures == []
        assert len(site.running()) == 3
    finally:
        site.ecs.update_container_instances_state(containerInstances=[instance], status="ACTIVE")


def test_fixed_host_ports_are_rolled_stop_first_by_itself(site: Site) -> None:
    fixed = {"portMappings": [{"containerPort": 8080, "hostPort": 18080}]}
    site.create(3, web(site.image, "one", **fixed))
    with http_load(site.fleet, site.name, site.addresses) as load:
        site.update(web(site.image, "two", **fixed))
        steady(site.fleet, site.name, within_s=120)
        eventually(lambda: load.answers["two"] > 20)
    assert load.failures == []
    assert site.versions() == {"2": 3}


def test_a_daemon_has_one_task_on_each_host_and_follows_them(site: Site) -> None:
    service = site.create(0, web(site.image, "one"), schedulingStrategy="DAEMON")
    assert service["desiredCount"] == 3
    assert sorted(task["containerInstanceArn"] for task in live_tasks(site.fleet, site.name)) == sorted(site.addresses)
    site.update(web(site.image, "two"))
    steady(site.fleet, site.name)
    assert site.versions() == {"2": 3}
    instance = site.fleet.instance_id(site.hosts[0].name)
    site.ecs.update_container_instances_state(containerInstances=[instance], status="DRAINING")
    try:
        eventually(lambda: described(site.fleet, site.name)["runningCount"] == 2)
        assert steady(site.fleet, site.name)["desiredCount"] == 2
    finally:
        site.ecs.update_container_instances_state(containerInstances=[instance], status="ACTIVE")
    eventually(lambda: described(site.fleet, site.name)["runningCount"] == 3)
    assert steady(site.fleet, site.name)["desiredCount"] == 3
