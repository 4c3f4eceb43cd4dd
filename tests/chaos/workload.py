"""What clients run: containers that leave marks of every start and end where neither Homeport nor an Engine writes."""

from pathlib import Path
from typing import Any, Final

from tests.e2e.harness import Installation

__all__ = [
    "ANCHOR",
    "JOB",
    "MEMORY_MIB",
    "ONLY",
    "ONLY_LOST_AFTER_S",
    "SERVICE_REVISIONS",
    "job_command",
    "register_all",
    "register_only",
    "sleeper_command",
]

#: The family of tasks that are run by themselves.
JOB: Final = "job"
#: The service that no client touches: whether it has its tasks tells whether the cluster is well.
ANCHOR: Final = "anchor"
#: The service, and the family, of which at most one task may run at a time, whatever happens to its host.
ONLY: Final = "only"
#: The shortest silence of its host after which it may be replaced, in seconds.
ONLY_LOST_AFTER_S: Final = 25
_SERVICE: Final = "worker"
#: What each task has.
MEMORY_MIB: Final = 16
#: Of the services' family; what they run is the same, save that the last has a health check.
SERVICE_REVISIONS: Final = 3

#: A container's host name is the beginning of its id.
_MARK: Final = "echo {word} $(hostname) {about} >>/ground/marks"
#: Ends at SIGTERM at once, which a shell as process 1 ignores unless told.
_SERVE: Final = "trap 'exit 0' TERM; touch /tmp/ready; sleep 1000000 & wait"
#: Says over and over that it runs, by the clock of the machine, which all hosts of a run share.
_BEAT: Final = (
    "trap 'exit 0' TERM; while read now rest </proc/uptime; "
    "do echo $(hostname) $now >>/ground/beats; sleep 0.2 & wait $!; done"
)


def job_command(token: str, *, seconds: float, code: int) -> list[str]:
    """A job: says one line, takes its time, ends with a code."""
    begin, end = _MARK.format(word="start", about=token), _MARK.format(word="end", about=code)
    return ["sh", "-c", f'{begin}; echo "said {token}"; sleep {seconds}; {end}; exit {code}']


def sleeper_command(token: str) -> list[str]:
    """One that never ends by itself."""
    return ["sh", "-c", f'{_MARK.format(word="start", about=token)}; echo "said {token}"; exec sleep 1000000']


def register_all(fleet: Installation, image: str, ground: Path) -> list[str]:
    """Register what clients run; return the services' revisions."""
    job, volumes = _with_ground(image, ["true"], ground)
    fleet.register(JOB, job, volumes=volumes)
    script = f"{_MARK.format(word='start', about='service')}; {_SERVE}"
    service: dict[str, Any] = {**job, "command": ["sh", "-c", script]}
    check = {"command": ["CMD-SHELL", "test -e /tmp/ready"], "interval": 10, "timeout": 5, "retries": 3}
    checks: list[dict[str, Any]] = [{}] * (SERVICE_REVISIONS - 1) + [{"healthCheck": check}]
    return [fleet.register(_SERVICE, {**service, **more}, volumes=volumes) for more in checks]


def register_only(fleet: Installation, image: str, ground: Path) -> str:
    """Register what runs at most once at a time; return its definition."""
    (ground / "beats").touch()
    container, volumes = _with_ground(image, ["sh", "-c", _BEAT], ground)
    return fleet.register(ONLY, container, volumes=volumes)


def _with_ground(image: str, command: list[str], ground: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a container that sees the ground, and its task's volumes."""
    mounts = [{"sourceVolume": "ground", "containerPath": "/ground"}]
    container = {"name": "app", "image": image, "command": command, "memory": MEMORY_MIB, "mountPoints": mounts}
    return container, [{"name": "ground", "host": {"sourcePath": str(ground)}}]
