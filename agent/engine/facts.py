"""From the Engine's JSON to the facts of `api.py`. Pure."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, cast

from agent.engine.api import ContainerFacts, EngineEvent, EngineInfo, ImageFacts
from homeport.protocol import NetworkBinding
from homeport.status import HealthStatus

__all__ = [
    "EVENT_ACTIONS",
    "LISTED_KEYS",
    "container_facts",
    "engine_event",
    "engine_info",
    "event_nanoseconds",
    "image_facts",
    "listed_facts",
    "parse_ns",
    "parse_time",
]

#: ECS cuts the output of a health check at this length.
_HEALTH_OUTPUT_MAX: Final = 1024
_HEALTH: Final = {
    "starting": HealthStatus.UNKNOWN,
    "healthy": HealthStatus.HEALTHY,
    "unhealthy": HealthStatus.UNHEALTHY,
}
#: Exit codes that can't be the OOM killer's doing: a success, and the answer to SIGTERM. Docker flags every container
#: below a cgroup that ran out, so also the siblings of the one that was killed, whenever and however they end.
_NOT_BY_OOM: Final = frozenset({0, 143})
#: Docker's word -> ours.
EVENT_ACTIONS: Final = {
    "create": "create",
    "start": "start",
    "die": "die",
    "oom": "oom",
    "health_status": "health",
    "destroy": "destroy",
}
#: What `listed_facts` reads.
LISTED_KEYS: Final = ("Id", "Names", "Labels", "State", "ImageID")
_DEFAULT_REGISTRY: Final = re.compile(r"^(docker\.io/)?(library/)?")


def parse_time(text: str) -> float | None:
    """Return Docker's RFC 3339 time as epoch seconds; None for its zero time."""
    if not text or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(text).timestamp()


def parse_ns(text: str) -> int:
    """Return Docker's RFC 3339 time, of UTC and up to nine decimals, as epoch nanoseconds. Raises ValueError."""
    second, _, fraction = text.removesuffix("Z").partition(".")
    return _second(second) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or 0)


@lru_cache(maxsize=256)
def _second(text: str) -> int:
    """Lines of one moment share it, and reading it is the dearest part."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def engine_info(document: Mapping[str, Any], version: Mapping[str, Any]) -> EngineInfo:
    """Read the answers of /info and /version."""
    return EngineInfo(
        version=document["ServerVersion"],
        os_type=document["OSType"],
        architecture=document["Architecture"],
        # Engines before 20.10 don't say, and know only v1.
        cgroup_version="2" if document.get("CgroupVersion") == "2" else "1",
        cgroup_driver=document.get("CgroupDriver", "cgroupfs"),
        root_dir=document["DockerRootDir"],
        live_restore=document.get("LiveRestoreEnabled", False),
        log_drivers=tuple((document.get("Plugins") or {}).get("Log") or ()),
        api_version=version["ApiVersion"],
    )


def image_facts(reference: str, document: Mapping[str, Any]) -> ImageFacts:
    """Read the answer of an image's inspect. The digest is the one under the reference's own repository, if any."""
    repository = _repository(reference)
    digests = [str(entry).partition("@")[::2] for entry in document.get("RepoDigests") or ()]
    own = [digest for name, digest in digests if _repository(name) == repository]
    every = own or [digest for _, digest in digests]
    return ImageFacts(image_id=document["Id"], digest=every[0] if every else None)


def _repository(reference: str) -> str:
    """Return a reference without registry default, tag and digest."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return _DEFAULT_REGISTRY.sub("", head + slash + last.partition(":")[0])


def container_facts(document: Mapping[str, Any]) -> ContainerFacts:
    """Read the answer of a container's inspect.

    An exit code and an end are those of the last run, so there is none before it and none while the next one runs.
    """
    state = document["State"]
    status = state["Status"]
    over = status in ("exited", "dead")
    health = state.get("Health")
    started_at = parse_time(state.get("StartedAt") or "")
    finished_at = parse_time(state.get("FinishedAt") or "") if over else None
    if started_at is not None and finished_at is not None:
        # Docker writes down the start of a short run when it is over, some milliseconds behind its end.
        finished_at = max(started_at, finished_at)
    return ContainerFacts(
        container_id=document["Id"],
        name=str(document["Name"]).removeprefix("/"),
        labels=document["Config"].get("Labels") or {},
        state=status,
        exit_code=state["ExitCode"] if over else None,
        oom_killed=over and bool(state.get("OOMKilled")) and state["ExitCode"] not in _NOT_BY_OOM,
        error=state.get("Error") or "",
        started_at=started_at,
        finished_at=finished_at,
        health=_HEALTH.get(health["Status"]) if health else None,
        health_output=_health_output(health) if health else "",
        bindings=_bindings((document.get("NetworkSettings") or {}).get("Ports") or {}),
        image_id=document.get("Image", ""),
        pid=state.get("Pid", 0),
    )


def _health_output(health: Mapping[str, Any]) -> str:
    log = health.get("Log") or ()
    return str(log[-1].get("Output", ""))[:_HEALTH_OUTPUT_MAX] if log else ""


def _bindings(ports: Mapping[str, Sequence[Mapping[str, str]] | None]) -> tuple[NetworkBinding, ...]:
    found = []
    for key, targets in ports.items():
        port, _, protocol = key.partition("/")
        found += [
            NetworkBinding(
                bind_ip=target["HostIp"],
                container_port=int(port),
                host_port=int(target["HostPort"]),
                protocol=protocol,
            )
            # Exposed but not published ports have no targets.
            for target in targets or ()
        ]
    # IPv4 first: "0.0.0.0" before "::".
    # The Engine publishes on IPv6 too; ECS's agent leaves those out (ECS_EXCLUDE_IPV6_PORTBINDING), and clients take
    # the first binding of a port for the one.
    on_ipv4 = {(binding.container_port, binding.protocol) for binding in found if ":" not in binding.bind_ip}
    told = [b for b in found if ":" not in b.bind_ip or (b.container_port, b.protocol) not in on_ipv4]
    return tuple(sorted(told, key=lambda b: (b.container_port, b.protocol, b.bind_ip, b.host_port)))


def listed_facts(document: Mapping[str, Any]) -> ContainerFacts:
    """Read one entry of the list of containers: state and labels, no times, exit code or health."""
    names = document["Names"] or [""]
    return ContainerFacts(
        container_id=document["Id"],
        name=str(names[0]).removeprefix("/"),
        labels=document["Labels"] or {},
        state=document["State"],
        image_id=document["ImageID"],
    )


def event_nanoseconds(document: Mapping[str, Any]) -> int:
    """Return when an event happened by the Engine's clock, in nanoseconds since the epoch."""
    return int(document.get("timeNano") or int(document.get("time", 0)) * 1_000_000_000)


def engine_event(document: Mapping[str, Any]) -> EngineEvent | None:
    """Read an event; None if it is of a kind nobody here asks for."""
    # "health_status: healthy": the status follows a colon.
    kind = EVENT_ACTIONS.get(str(document.get("Action", "")).partition(":")[0])
    if kind is None:
        return None
    actor = document["Actor"]
    attributes = actor.get("Attributes") or {}
    exit_code = attributes.get("exitCode")
    return EngineEvent(
        kind=cast(Any, kind),
        at=event_nanoseconds(document) / 1e9,
        container_id=actor["ID"],
        labels={name: value for name, value in attributes.items() if name not in ("exitCode", "execID")},
        exit_code=int(exit_code) if exit_code is not None and kind == "die" else None,
    )
