"""What the Engine is asked for, for each thing a task definition can say."""

from typing import Any

import pytest

from agent.engine.errors import Rejected
from agent.engine.plan import container_name, container_plan, cpu_quota_us, labels, owner_labels, volume_plans
from homeport.ids import InstanceId, TaskId
from homeport.spec import (
    ContainerSpec,
    DockerVolume,
    HealthCheck,
    LogConfiguration,
    LogShipping,
    Mount,
    PortMapping,
    TaskSpec,
    Ulimit,
    Volume,
)

TASK_ID = TaskId("0123456789abcdef0123456789abcdef")
OTHER_ID = TaskId("f" * 32)
OWNER = InstanceId("a" * 32)
MIB = 1024 * 1024
SECOND_NS = 1_000_000_000


def container(**members: Any) -> ContainerSpec:
    return ContainerSpec(**({"name": "web", "image": "shop:1", "container_arn": "arn"} | members))


def task(*containers: ContainerSpec, **members: Any) -> TaskSpec:
    defaults: dict[str, Any] = {"task_arn": "arn:task", "cluster": "default", "family": "shop", "revision": 3}
    return TaskSpec(**(defaults | {"containers": containers} | members))


def body(spec: ContainerSpec, *, cgroup_parent: str | None = None, **task_members: Any) -> dict[str, Any]:
    made = container_plan(
        TASK_ID,
        task(spec, **task_members),
        spec,
        owner=OWNER,
        cgroup_parent=cgroup_parent,
        log_drivers=("json-file", "local", "journald", "awslogs", "fluentd"),
    )
    return made.body


def host(spec: ContainerSpec, **members: Any) -> dict[str, Any]:
    config: dict[str, Any] = body(spec, **members)["HostConfig"]
    return config


# ---------------------------------------------------------------- names and labels


def test_a_name_is_the_same_each_time_and_no_other_tasks() -> None:
    spec = task(container())
    assert container_name(spec, TASK_ID, "web") == f"homeport-shop-3-web-{TASK_ID}"
    assert container_name(spec, TASK_ID, "web") != container_name(spec, OTHER_ID, "web")
    assert container_name(spec, TASK_ID, "web") != container_name(spec, TASK_ID, "db")


def test_long_names_are_cut_but_stay_apart() -> None:
    spec = task(container(), family="f" * 255)
    one, two = (container_name(spec, TASK_ID, "c" * 254 + last) for last in "ab")
    assert one != two
    assert len(one) < 200
    assert one.endswith(TASK_ID)


def test_our_labels_win_over_the_users() -> None:
    spec = container(docker_labels={"team": "blue", "homeport.task": "forged", "com.amazonaws.ecs.cluster": "x"})
    assert labels(TASK_ID, task(spec), spec, owner=OWNER) == {
        "team": "blue",
        "com.amazonaws.ecs.cluster": "default",
        "com.amazonaws.ecs.container-name": "web",
        "com.amazonaws.ecs.task-arn": "arn:task",
        "com.amazonaws.ecs.task-definition-family": "shop",
        "com.amazonaws.ecs.task-definition-version": "3",
        "homeport.instance": OWNER,
        "homeport.task": TASK_ID,
        "homeport.container": "web",
    }
    assert owner_labels(OWNER).items() <= labels(TASK_ID, task(spec), spec, owner=OWNER).items()


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(("units", "shares"), [(0, 2), (1, 2), (2, 2), (256, 256), (4096, 4096)])
def test_cpu_is_shares_with_dockers_minimum(units: int, shares: int) -> None:
    assert host(container(cpu_units=units))["CpuShares"] == shares


@pytest.mark.parametrize(("units", "quota"), [(256, 25_000), (1024, 100_000), (2048, 200_000), (1, 1000)])
def test_a_quota_is_cpu_over_a_tenth_of_a_second(units: int, quota: int) -> None:
    assert cpu_quota_us(units) == quota


@pytest.mark.parametrize(
    ("spec", "task_members", "parent", "expected"),
    [
        (container(), {}, None, {}),
        (container(memory_mib=64), {}, None, {"Memory": 64 * MIB, "MemorySwap": 64 * MIB}),
        (container(memory_reservation_mib=32), {}, None, {"MemoryReservation": 32 * MIB}),
        (
            container(memory_mib=64, memory_reservation_mib=32),
            {},
            None,
            {"Memory": 64 * MIB, "MemorySwap": 64 * MIB, "MemoryReservation": 32 * MIB},
        ),
        # A task's memory shows in containers without their own, and never above their own.
        (container(), {"memory_mib": 128}, "/homeport/t", {"Memory": 128 * MIB, "MemorySwap": 128 * MIB}),
        (container(memory_mib=64), {"memory_mib": 128}, "/homeport/t", {"Memory": 64 * MIB, "MemorySwap": 64 * MIB}),
        (
            container(memory_reservation_mib=256),
            {"memory_mib": 128},
            "/homeport/t",
            {"Memory": 128 * MIB, "MemorySwap": 128 * MIB, "MemoryReservation": 128 * MIB},
        ),
        # A task's cpu is its cgroup's; without one it holds each container.
        (container(), {"cpu_units": 512}, "/homeport/t", {}),
        (container(), {"cpu_units": 512}, None, {"CpuPeriod": 100_000, "CpuQuota": 50_000}),
    ],
)
def test_memory_and_quota(
    spec: ContainerSpec, task_members: dict[str, Any], parent: str | None, expected: dict[str, int]
) -> None:
    config = host(spec, cgroup_parent=parent, **task_members)
    members = ("Memory", "MemorySwap", "MemoryReservation", "CpuPeriod", "CpuQuota")
    assert {name: config[name] for name in members if name in config} == expected
    assert config.get("CgroupParent") == parent


# ---------------------------------------------------------------- network


def test_ports_are_published_in_bridge_mode() -> None:
    ports = (
        PortMapping(container_port=80, host_port=8080),
        PortMapping(container_port=80, host_port=8081),
        PortMapping(container_port=53, protocol="udp"),
    )
    made = body(container(ports=ports))
    assert made["HostConfig"]["NetworkMode"] == "bridge"
    assert made["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostPort": "8080"}, {"HostPort": "8081"}],
        "53/udp": [{"HostPort": "0"}],
    }
    assert made["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}


@pytest.mark.parametrize("mode", ["host", "none"])
def test_other_modes_publish_nothing(mode: str) -> None:
    made = body(container(ports=(PortMapping(container_port=80, host_port=80),)), network_mode=mode)
    assert made["HostConfig"]["NetworkMode"] == mode
    assert "PortBindings" not in made["HostConfig"]
    assert "ExposedPorts" not in made


# ---------------------------------------------------------------- the rest of a definition


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, {}),
        ({"command": ("a", "b")}, {"Cmd": ["a", "b"]}),
        ({"command": ()}, {"Cmd": []}),
        ({"entry_point": ("sh", "-c")}, {"Entrypoint": ["sh", "-c"]}),
        ({"user": "1000:1000"}, {"User": "1000:1000"}),
        ({"working_directory": "/srv"}, {"WorkingDir": "/srv"}),
        ({"hostname": "box"}, {"Hostname": "box"}),
        (
            {"health_check": HealthCheck(command=("CMD", "true"), interval_s=10, timeout_s=2, retries=4)},
            {
                "Healthcheck": {
                    "Test": ["CMD", "true"],
                    "Interval": 10 * SECOND_NS,
                    "Timeout": 2 * SECOND_NS,
                    "Retries": 4,
                    "StartPeriod": 0,
                }
            },
        ),
    ],
)
def test_what_is_not_said_is_the_images_own(members: dict[str, Any], expected: dict[str, Any]) -> None:
    made = body(container(**members))
    names = ("Cmd", "Entrypoint", "User", "WorkingDir", "Hostname", "Healthcheck")
    assert {name: made[name] for name in names if name in made} == expected


def test_the_environment_is_the_users_under_the_agents_own() -> None:
    spec = container(environment={"A": "1", "B": "x=y"})
    made = container_plan(
        TASK_ID, task(spec), spec, owner=OWNER, cgroup_parent=None, environment={"A": "ours", "ECS": "2"}
    )
    assert made.body["Env"] == ["A=ours", "B=x=y", "ECS=2"]


def test_switches_and_lists() -> None:
    spec = container(
        privileged=True,
        read_only_root=True,
        pseudo_terminal=True,
        interactive=True,
        stop_timeout_s=7,
        dns_servers=("9.9.9.9",),
        dns_search_domains=("example.org",),
        extra_hosts=("db:10.0.0.1",),
        docker_security_options=("no-new-privileges",),
        ulimits=(Ulimit(name="nofile", soft=1, hard=2),),
        sysctls={"net.core.somaxconn": "10"},
    )
    made = body(spec)
    assert (made["Tty"], made["OpenStdin"], made["StopTimeout"]) == (True, True, 7)
    config = made["HostConfig"]
    assert (config["Privileged"], config["ReadonlyRootfs"]) == (True, True)
    assert config["Dns"] == ["9.9.9.9"]
    assert config["DnsSearch"] == ["example.org"]
    assert config["ExtraHosts"] == ["db:10.0.0.1"]
    assert config["SecurityOpt"] == ["no-new-privileges"]
    assert config["Ulimits"] == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
    assert config["Sysctls"] == {"net.core.somaxconn": "10"}


def test_docker_never_restarts_by_itself() -> None:
    assert host(container())["RestartPolicy"] == {"Name": "no"}


# ---------------------------------------------------------------- volumes


VOLUMES = (
    Volume(name="host", host_path="/srv/data"),
    Volume(name="empty"),
    Volume(name="mine", docker=DockerVolume(driver="nfs", driver_opts={"o": "rw"}, labels={"team": "blue"})),
    Volume(name="ours", docker=DockerVolume(scope="shared", autoprovision=True)),
    Volume(name="theirs", docker=DockerVolume(scope="shared")),
)


def test_mounts_become_binds() -> None:
    mounts = tuple(Mount(volume=v.name, container_path=f"/{v.name}", read_only=v.name == "ours") for v in VOLUMES)
    assert host(container(mounts=mounts), volumes=VOLUMES)["Binds"] == [
        "/srv/data:/host",
        f"homeport-shop-3-empty-{TASK_ID}:/empty",
        f"homeport-shop-3-mine-{TASK_ID}:/mine",
        "ours:/ours:ro",
        "theirs:/theirs",
    ]


def test_volumes_of_a_task_are_made_with_it_and_shared_ones_stay() -> None:
    plans = {plan.volume: plan for plan in volume_plans(TASK_ID, task(container(), volumes=VOLUMES), owner=OWNER)}
    assert {name: (plan.create, plan.remove_with_task) for name, plan in plans.items()} == {
        "empty": (True, True),
        "mine": (True, True),
        "ours": (True, False),
        "theirs": (False, False),
    }
    ours = {"homeport.instance": OWNER, "homeport.task": TASK_ID}
    assert (plans["mine"].driver, plans["mine"].options) == ("nfs", {"o": "rw"})
    assert plans["mine"].labels == {"team": "blue"} | ours
    assert plans["ours"].labels == {}
    assert plans["mine"].name == f"homeport-shop-3-mine-{TASK_ID}"


@pytest.mark.parametrize(
    ("mount", "volumes", "text"),
    [
        (Mount(volume="x", container_path="/x"), (), "unknown volume: x"),
        (Mount(volume="host", container_path="/a:b"), VOLUMES, "must not contain a colon: /a:b"),
    ],
)
def test_mounts_that_can_not_be_are_refused(mount: Mount, volumes: tuple[Volume, ...], text: str) -> None:
    with pytest.raises(Rejected, match=text):
        host(container(mounts=(mount,)), volumes=volumes)


# ---------------------------------------------------------------- logs


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (None, ("json-file", {"max-size": "10m", "max-file": "3"})),
        (
            LogConfiguration(driver="json-file", options={"max-size": "1m"}),
            ("json-file", {"max-size": "1m", "max-file": "3"}),
        ),
        (LogConfiguration(driver="journald", options={"tag": "x"}), ("journald", {"tag": "x"})),
        (LogConfiguration(driver="none"), ("none", {})),
        (LogConfiguration(driver="fluentd"), ("fluentd", {"mode": "non-blocking", "max-buffer-size": "10m"})),
        (LogConfiguration(driver="fluentd", options={"mode": "blocking"}), ("fluentd", {"mode": "blocking"})),
        (
            LogConfiguration(driver="fluentd", options={"max-buffer-size": "1m"}),
            ("fluentd", {"mode": "non-blocking", "max-buffer-size": "1m"}),
        ),
        (
            LogConfiguration(driver="awslogs", options={"awslogs-group": "g", "awslogs-stream-prefix": "p"}),
            (
                "awslogs",
                {
                    "mode": "non-blocking",
                    "max-buffer-size": "10m",
                    "awslogs-group": "g",
                    "awslogs-stream": f"p/web/{TASK_ID}",
                },
            ),
        ),
    ],
)
def test_logs_are_bounded_and_block_nobody(log: LogConfiguration | None, expected: tuple[str, dict[str, str]]) -> None:
    config = host(container(log=log))["LogConfig"]
    assert (config["Type"], config["Config"]) == expected


@pytest.mark.parametrize(
    ("shipping", "buffer"),
    [
        (LogShipping(group="g"), {"mode": "blocking"}),
        (LogShipping(group="g", mode="non-blocking"), {"mode": "non-blocking", "max-buffer-size": "10m"}),
        (
            LogShipping(group="g", mode="non-blocking", max_buffer_size="1m"),
            {"mode": "non-blocking", "max-buffer-size": "1m"},
        ),
    ],
)
def test_output_that_is_shipped_waits_in_bounded_files(shipping: LogShipping, buffer: dict[str, str]) -> None:
    config = host(container(shipping=shipping))["LogConfig"]
    assert config == {"Type": "json-file", "Config": {"max-size": "16m", "max-file": "4", **buffer}}


def test_a_log_driver_that_the_engine_lacks_is_refused_by_name() -> None:
    with pytest.raises(Rejected, match=r"container web: .* no log driver 'splunk'; it has awslogs, fluentd"):
        host(container(log=LogConfiguration(driver="splunk")))
