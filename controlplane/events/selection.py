"""Which events a reader wants, by cluster, service, task, kind or pattern. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from controlplane.events.documents import DEPLOYMENT, INSTANCE, OWN_ACTION, SERVICE, TASK
from controlplane.events.notes import EventKind, StoredEvent
from controlplane.events.pattern import Pattern

__all__ = ["KINDS", "Selection", "Subject", "subject_of"]

#: Short words for detail types.
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "task": (TASK,),
    "instance": (INSTANCE,),
    "deployment": (DEPLOYMENT,),
    "service": (SERVICE, OWN_ACTION),
}
_GROUP: Final = "service:"
#: What the events of a detail type are stored as; any other one comes from outside.
_STORED_AS: Final = {
    TASK: EventKind.TASK,
    INSTANCE: EventKind.INSTANCE,
    DEPLOYMENT: EventKind.DEPLOYMENT,
    SERVICE: EventKind.SERVICE,
    OWN_ACTION: EventKind.SERVICE,
}


class Subject(NamedTuple):
    """What an event is about, by name and id; "" and () for what it isn't about."""

    cluster: str = ""
    service: str = ""
    tasks: Sequence[str] = ()


def subject_of(document: Mapping[str, Any]) -> Subject:
    """Return what an event of ours is about."""
    detail = document["detail"]
    match document["detail-type"]:
        case t if t == TASK:
            group = str(detail["group"])
            service = group.removeprefix(_GROUP) if group.startswith(_GROUP) else ""
            return Subject(_last(detail["clusterArn"]), service, (_last(detail["taskArn"]),))
        case t if t == INSTANCE:
            return Subject(_last(detail["clusterArn"]))
        case t if t in (DEPLOYMENT, SERVICE, OWN_ACTION):
            _, cluster, service = document["resources"][0].rsplit("/", 2)
            return Subject(cluster, service, tuple(map(_last, detail.get("taskArns", ()))))
        case _:
            return Subject()


def _last(arn: str) -> str:
    return arn.rpartition("/")[2]


class Selection(NamedTuple):
    """All that is given must be so. `task`: an id or its beginning. `types`: any of these detail types."""

    cluster: str = ""
    service: str = ""
    task: str = ""
    types: frozenset[str] = frozenset()
    pattern: Pattern | None = None

    @property
    def is_narrow(self) -> bool:
        """Whether most events can be told from those that are wanted without being rendered."""
        return bool(self.cluster or self.service or self.task or self.types)

    def may_want(self, event: StoredEvent) -> bool:
        """Tell, from its row alone, whether an event can be wanted: a name that isn't in there is none of its own."""
        if self.types and all(_STORED_AS.get(t, EventKind.CUSTOM) != event.kind for t in self.types):
            return False
        names = (name.encode() for name in (self.cluster, self.service, self.task) if name)
        return all(name in event.record or name in event.facts for name in names)

    def wants(self, document: Mapping[str, Any]) -> bool:
        """Tell whether an event is wanted."""
        if self.types and document["detail-type"] not in self.types:
            return False
        if self.cluster or self.service or self.task:
            found = subject_of(document)
            if self.cluster and self.cluster != found.cluster:
                return False
            if self.service and self.service != found.service:
                return False
            if self.task and not any(task.startswith(self.task) for task in found.tasks):
                return False
        return self.pattern is None or self.pattern.matches(document)
