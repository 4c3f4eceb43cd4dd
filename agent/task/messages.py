"""What a task's runner is told (facts) and what its `step` wants done (actions). All are immutable values."""

from typing import Literal

import msgspec

from agent.engine.api import ContainerFacts, EngineEvent, ImageFacts
from agent.task.model import Verb
from homeport.status import DesiredStatus

__all__ = [
    "Acked",
    "Action",
    "CancelPull",
    "Create",
    "Created",
    "Ensure",
    "EnsureFailed",
    "Ensured",
    "Fact",
    "Failed",
    "FailureKind",
    "ImageReady",
    "Inspect",
    "Inspected",
    "Observed",
    "ProvisionKind",
    "Pull",
    "PullBegan",
    "PullMoved",
    "Removed",
    "Resync",
    "Start",
    "StartWithdrawn",
    "Started",
    "Stop",
    "StopReturned",
    "Wanted",
]

#: How a call failed: the Engine can't be reached, didn't answer in time, knows no such object, or said no.
FailureKind = Literal["unavailable", "timeout", "missing", "rejected"]
#: A resource of the whole task.
ProvisionKind = Literal["volumes", "cgroup"]


class _Message(msgspec.Struct, frozen=True):
    """Base of facts and actions."""


# ---------------------------------------------------------------- facts


class Wanted(_Message, frozen=True):
    """The desired status, from the control plane or this host's worker."""

    desired: DesiredStatus
    reason: str = ""
    #: The GPUs it has been given, now that it is to run.
    gpu_ids: tuple[str, ...] = ()


class Refused(_Message, frozen=True):
    """The host can't give the task what it asks for, now that it is to run."""

    reason: str


class Isolated(_Message, frozen=True):
    """The control plane can't be reached for so long that a task of which at most one may run has to go.

    `silent_s`: None if that isn't known. `kill`: its time to stop is over.
    """

    silent_s: float | None
    kill: bool = False


class Acked(_Message, frozen=True):
    """The control plane has every report up to `seq`."""

    seq: int


class Removed(_Message, frozen=True):
    """The control plane is done with the task (or never heard of it)."""


class PullBegan(_Message, frozen=True):
    """The image isn't on the host: it is being fetched."""

    container: str


class PullMoved(_Message, frozen=True):
    """A pull goes on."""

    container: str
    done_bytes: int
    total_bytes: int


class ImageReady(_Message, frozen=True):
    """The image is on the host. `pulled_in_s`: None if it was there already."""

    container: str
    image: ImageFacts
    pulled_in_s: float | None = None
    pulled_bytes: int = 0


class Ensured(_Message, frozen=True):
    """The task's volumes, or its cgroup, are there. `cgroup_parent`: None if the task has no cgroup of its own."""

    kind: ProvisionKind
    cgroup_parent: str | None = None


class EnsureFailed(_Message, frozen=True):
    """They couldn't be made. `jitter`: random in [0, 1), for the delay before another try."""

    kind: ProvisionKind
    failure: FailureKind
    message: str
    jitter: float = 0.0


class Created(_Message, frozen=True):
    """The container exists."""

    container: str
    runtime_id: str


class Started(_Message, frozen=True):
    """A start returned; inspecting will tell what became of it."""

    container: str


class StartWithdrawn(_Message, frozen=True):
    """A start that still waited for its turn was given up: it had no effect."""

    container: str


class StopReturned(_Message, frozen=True):
    """A stop returned; inspecting will tell what became of it."""

    container: str


class Inspected(_Message, frozen=True):
    """What the Engine knows of a container now; None: there is none, neither by id nor by name.

    `image`: of a container that was found although nothing is on record of its image, since the agent was killed
    between the two.
    """

    container: str
    facts: ContainerFacts | None
    image: ImageFacts | None = None


class Failed(_Message, frozen=True):
    """A verb failed. `jitter`: random in [0, 1), for the delay before another try."""

    container: str
    verb: Verb
    failure: FailureKind
    message: str
    jitter: float = 0.0


class Observed(_Message, frozen=True):
    """The Engine tells that something happened to a container."""

    container: str
    event: EngineEvent


class Resync(_Message, frozen=True):
    """Events may have been missed: look at every container again, and try again at once what waits to be retried."""


Fact = (
    Wanted
    | Refused
    | Isolated
    | Acked
    | Removed
    | PullBegan
    | PullMoved
    | ImageReady
    | Ensured
    | EnsureFailed
    | Created
    | Started
    | StartWithdrawn
    | StopReturned
    | Inspected
    | Failed
    | Observed
    | Resync
)


# ---------------------------------------------------------------- actions


class Ensure(_Message, frozen=True):
    """Make the task's volumes, or its cgroup, unless they are there."""

    kind: ProvisionKind


class Pull(_Message, frozen=True):
    """Have the image on the host, fetching it only if it is missing."""

    container: str


class CancelPull(_Message, frozen=True):
    """Stop waiting for the image."""

    container: str


class Create(_Message, frozen=True):
    """Create the container under its saved name."""

    container: str


class Start(_Message, frozen=True):
    """Start the container."""

    container: str
    runtime_id: str


class Stop(_Message, frozen=True):
    """Ask the container to stop, and kill it after `timeout_s`."""

    container: str
    runtime_id: str
    timeout_s: int


class Inspect(_Message, frozen=True):
    """Look at the container, by id where known, else (and if that fails) by name."""

    container: str
    runtime_id: str | None
    docker_name: str


Action = Ensure | Pull | CancelPull | Create | Start | Stop | Inspect
