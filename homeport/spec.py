"""What an agent needs to know to run a task: a task definition with its overrides applied, in Homeport's own terms.

Made by the control plane (`controlplane.api.ecs.task_spec`) from the ECS document, sent in an assignment, kept in the
agent's journal. Immutable: a task's spec never changes. A member that a definition doesn't set has the default below,
which is ECS's own. Adding a member with a default is compatible in both directions; renaming one isn't.
"""

from typing import Final, Literal

import msgspec

__all__ = [
    "DEFAULT_STOP_TIMEOUT_S",
    "ContainerSpec",
    "Dependency",
    "DockerVolume",
    "HealthCheck",
    "LogConfiguration",
    "Mount",
    "PortMapping",
    "Resources",
    "RestartPolicy",
    "TaskSpec",
    "Ulimit",
    "Volume",
]

#: Seconds between SIGTERM and SIGKILL when a container doesn't set stopTimeout (ECS's default).
DEFAULT_STOP_TIMEOUT_S: Final = 30

Protocol = Literal["tcp", "udp"]


class _Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of all parts of a spec. Immutable trees, so the garbage collector needn't look at them (gc=False)."""


class PortMapping(_Spec, frozen=True):
    """One container port published on the host. `host_port` 0: the Engine picks a free one."""

    container_port: int
    host_port: int = 0
    protocol: Protocol = "tcp"
    name: str | None = None


class Mount(_Spec, frozen=True):
    """A volume of the task mounted into a container."""

    volume: str
    container_path: str
    read_only: bool = False


class DockerVolume(_Spec, frozen=True):
    """A volume kept by Docker. Scope "task": removed with the task; "shared": stays."""

    scope: Literal["task", "shared"] = "task"
    autoprovision: bool = False
    driver: str = "local"
    driver_opts: dict[str, str] = {}
    labels: dict[str, str] = {}


class Volume(_Spec, frozen=True):
    """A volume of the task: a host path, a Docker volume, or (neither set) an empty one of the task's own."""

    name: str
    host_path: str | None = None
    docker: DockerVolume | None = None


class Dependency(_Spec, frozen=True):
    """An entry of `dependsOn`: `container` must have reached `condition` first."""

    container: str
    condition: Literal["START", "COMPLETE", "SUCCESS", "HEALTHY"]


class HealthCheck(_Spec, frozen=True):
    """A container health check, run by the Engine. `command` starts with CMD or CMD-SHELL, as Docker has it."""

    command: tuple[str, ...]
    interval_s: int = 30
    timeout_s: int = 5
    retries: int = 3
    start_period_s: int = 0


class RestartPolicy(_Spec, frozen=True):
    """`restartPolicy`: restart the container in place, at most once per `attempt_period_s`."""

    enabled: bool = False
    ignored_exit_codes: tuple[int, ...] = ()
    attempt_period_s: int = 300


class LogConfiguration(_Spec, frozen=True):
    """`logConfiguration`: a Docker log driver and its options."""

    driver: str
    options: dict[str, str] = {}


class LogShipping(_Spec, frozen=True):
    """Where a container's output is kept beyond its host: what the log driver `awslogs` means here.

    The Engine keeps it in a bounded file of its own; the agent ships it from there to the control plane.
    """

    group: str
    #: "": the stream is named after the container's Docker id.
    stream_prefix: str = ""
    #: Make the group if there is none.
    create_group: bool = False
    #: Of a group that is made; None: its events never expire.
    retention_days: int | None = None
    #: A line that this matches begins an event (RE2 syntax); "": every line is one. From awslogs-multiline-pattern or
    #: awslogs-datetime-format.
    multiline_pattern: str = ""
    #: How output gets into the Engine's file. ECS's default, non-blocking, is for drivers that send to a service: here
    #: nobody waits for one, and Docker's buffer drops without a word what a file would have taken.
    mode: Literal["blocking", "non-blocking"] = "blocking"
    max_buffer_size: str = "10m"

    def stream(self, container: str, task_id: str, runtime_id: str) -> str:
        """Return the stream's name, as the ECS agent makes it: PREFIX/CONTAINER/TASK-ID."""
        return f"{self.stream_prefix}/{container}/{task_id}" if self.stream_prefix else runtime_id


class Ulimit(_Spec, frozen=True):
    """One entry of `ulimits`."""

    name: str
    soft: int
    hard: int


class ContainerSpec(_Spec, frozen=True):
    """One container of a task, overrides applied."""

    name: str
    image: str
    container_arn: str
    #: None: the image's own. A list replaces it.
    command: tuple[str, ...] | None = None
    entry_point: tuple[str, ...] | None = None
    environment: dict[str, str] = {}
    user: str | None = None
    working_directory: str | None = None
    #: 1,024 per vCPU; 0: not set (Docker's minimum of shares).
    cpu_units: int = 0
    #: Hard limit. None: none but the task's.
    memory_mib: int | None = None
    #: Soft limit.
    memory_reservation_mib: int | None = None
    ports: tuple[PortMapping, ...] = ()
    mounts: tuple[Mount, ...] = ()
    essential: bool = True
    depends_on: tuple[Dependency, ...] = ()
    health_check: HealthCheck | None = None
    #: Bounds the wait for this container's COMPLETE, SUCCESS or HEALTHY by others; None: no bound.
    start_timeout_s: int | None = None
    stop_timeout_s: int = DEFAULT_STOP_TIMEOUT_S
    restart_policy: RestartPolicy = RestartPolicy()
    docker_labels: dict[str, str] = {}
    #: A log driver of the Engine's; None: its own files, from which `shipping` ships.
    log: LogConfiguration | None = None
    shipping: LogShipping | None = None
    hostname: str | None = None
    privileged: bool = False
    read_only_root: bool = False
    interactive: bool = False
    pseudo_terminal: bool = False
    dns_servers: tuple[str, ...] = ()
    dns_search_domains: tuple[str, ...] = ()
    #: "host:address", as Docker takes them.
    extra_hosts: tuple[str, ...] = ()
    docker_security_options: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: dict[str, str] = {}
    #: How many GPUs it has for itself.
    gpus: int = 0


class TaskSpec(_Spec, frozen=True):
    """A task as an agent runs it."""

    task_arn: str
    cluster: str
    family: str
    revision: int
    containers: tuple[ContainerSpec, ...]
    volumes: tuple[Volume, ...] = ()
    network_mode: Literal["bridge", "host", "none"] = "bridge"
    #: Hard limits over all containers of the task together; None: not set.
    cpu_units: int | None = None
    memory_mib: int | None = None
    #: "service:NAME" or "family:NAME" or what the caller gave.
    group: str = ""
    #: At most one may run: seconds without the control plane after which the agent stops the task by itself, and after
    #: which it kills what is left of it. None: the host's isolation changes nothing.
    isolation_stop_s: float | None = None
    isolation_kill_s: float | None = None

    def container(self, name: str) -> ContainerSpec:
        """Return the container named `name`. KeyError if there is none."""
        for container in self.containers:
            if container.name == name:
                return container
        raise KeyError(name)


class Resources(_Spec, frozen=True):
    """What a host has, or what a task holds on it."""

    cpu_units: int = 0
    memory_mib: int = 0
    #: Static host ports as ("tcp", 80). Dynamic ones are the Engine's business.
    ports: frozenset[tuple[Protocol, int]] = frozenset()
    gpus: int = 0

    @classmethod
    def of_task(cls, spec: TaskSpec) -> "Resources":
        """Return what a task asks for: its own cpu and memory where set, else the sum over its containers.

        Memory of a container is its reservation where given, else its limit (ECS's rule for placement).
        """
        cpu = spec.cpu_units
        memory = spec.memory_mib
        return cls(
            cpu_units=sum(c.cpu_units for c in spec.containers) if cpu is None else cpu,
            memory_mib=sum(c.memory_reservation_mib or c.memory_mib or 0 for c in spec.containers)
            if memory is None
            else memory,
            ports=frozenset(
                (port.protocol, port.host_port or port.container_port)
                for container in spec.containers
                for port in container.ports
                if port.host_port or spec.network_mode == "host"
            )
            if spec.network_mode != "none"
            else frozenset(),
            gpus=sum(c.gpus for c in spec.containers),
        )
