"""EventBridge: events from outside, put into the same stream as Homeport's own."""

from typing import Any, Final

import msgspec

from controlplane.api.events.common import BUS
from controlplane.api.registry import Document, operation
from controlplane.api.trigger_arguments import invalid
from controlplane.context import Context
from controlplane.events.notes import CustomFacts
from homeport.ids import new_uuid

__all__ = ["MAX_BYTES"]

#: AWS's quota for the entries of one request.
MAX_BYTES: Final = 256 * 1024
#: What AWS counts for an entry's Time.
_TIME_BYTES: Final = 14
#: Sources that only Homeport tells of.
_OWN: Final = "homeport"


@operation("events", "PutEvents")
def put_events(context: Context, request: Document) -> Document:
    """Put events into the stream, for rules to match. Entries that can't be used are refused one by one."""
    entries = request["Entries"]
    if sum(map(_size, entries)) > MAX_BYTES:
        raise invalid(f"Total size of the entries in the request is over the limit of {MAX_BYTES} bytes.")
    answers: list[Document] = []
    with context.state.transaction() as transaction:
        for entry in entries:
            problem = _problem(context, entry)
            if problem is not None:
                answers.append({"ErrorCode": problem[0], "ErrorMessage": problem[1]})
                continue
            facts = _facts(entry, new_uuid(context.random))
            transaction.emit(facts)
            answers.append({"EventId": facts.id})
    return {"FailedEntryCount": sum("ErrorCode" in each for each in answers), "Entries": answers}


def _size(entry: Document) -> int:
    texts = [entry.get("Source", ""), entry.get("DetailType", ""), entry.get("Detail", ""), *entry.get("Resources", ())]
    return sum(len(text.encode()) for text in texts) + (_TIME_BYTES if "Time" in entry else 0)


def _problem(context: Context, entry: Document) -> tuple[str, str] | None:
    """Return the code and message of what is wrong with an entry."""
    for name in ("Source", "DetailType", "Detail"):
        if not entry.get(name):
            return "InvalidArgument", f"Parameter {name} is not valid. Reason: {name} is a required argument."
    bus = entry.get("EventBusName", BUS)
    if bus not in (BUS, context.arns.event_bus(BUS)):
        return "InvalidArgument", f"Event bus {bus:.256} does not exist: Homeport has the default one."
    source = entry["Source"].lower()
    if source.startswith("aws.") or source == _OWN:
        return "NotAuthorizedForSourceException", "Not authorized for the source."
    if not isinstance(_detail(entry), dict):
        return "MalformedDetail", "Detail is malformed."
    return None


def _detail(entry: Document) -> Any:
    try:
        return msgspec.json.decode(entry["Detail"])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _facts(entry: Document, event_id: str) -> CustomFacts:
    return CustomFacts(
        source=entry["Source"],
        detail_type=entry["DetailType"],
        detail=_detail(entry),
        resources=tuple(entry.get("Resources", ())),
        time=entry.get("Time"),
        id=event_id,
    )
