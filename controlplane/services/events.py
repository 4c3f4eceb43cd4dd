"""A service's events: the last 100 as records, all in the history, under the service's id, and in the stream."""

from collections import deque
from typing import Final

from controlplane.events.notes import ServiceFacts
from controlplane.state.records import Record
from controlplane.state.service_records import EventRecord, ServiceRecord
from controlplane.state.state import State, Transaction
from homeport.ids import TaskId
from homeport.story import StoryLine

__all__ = ["MAX_EVENTS", "say"]

#: Events that DescribeServices shows, as in ECS.
MAX_EVENTS: Final = 100


def say(
    state: State,
    transaction: Transaction,
    service: ServiceRecord,
    message: str,
    *,
    event_id: str,
    now: float,
    facts: ServiceFacts | None = None,
) -> None:
    """Add the event "(service NAME) MESSAGE". The oldest beyond MAX_EVENTS is dropped, but stays in the history.

    `facts`: what it is in the stream of events; None if something else tells it there.
    """
    known = deque(state.events.where("service", service.id))
    number = known[-1].number + 1 if known else 1
    text = f"(service {service.name}) {message}"
    dropped: list[Record] = []
    while len(known) >= MAX_EVENTS:
        dropped.append(known.popleft())
    for record in dropped:
        transaction.delete(record)
    transaction.put(EventRecord(id=event_id, service_id=service.id, number=number, at=now, message=text))
    # The history is kept by id, whether that of a task or of a service.
    transaction.tell(TaskId(service.id), StoryLine(at=now, event="service-event", message=text, actor="service"))
    if facts is not None:
        transaction.emit(facts)
