"""Records as the JSON documents that are stored, and back.

A document has no version of its own: the store has one schema version, and `migrations` brings all documents to it
before any is read. Unknown members are ignored, so that what a newer minor version added does not stop an older one.
"""

from typing import Final, TypeVar

import msgspec

from controlplane.events.notes import Facts
from controlplane.state.kinds import RECORD_KINDS
from controlplane.state.records import Record, TaskRecord
from homeport.errors import JournalError
from homeport.story import StoryLine

__all__ = ["decode_record", "decode_story", "decode_task", "encode"]

T = TypeVar("T")

_encoder: Final = msgspec.json.Encoder()
_decoders: Final = {kind: msgspec.json.Decoder(record) for kind, record in RECORD_KINDS.items()}
_story_decoder: Final = msgspec.json.Decoder(tuple[StoryLine, ...] | StoryLine)
_task_decoder: Final = msgspec.json.Decoder(TaskRecord)


def encode(document: Record | StoryLine | Facts) -> bytes:
    """Return the JSON of a record, a story line or an event's facts.

    Raises ValueError or TypeError for what JSON can't carry.
    """
    return _encoder.encode(document)


def decode_record(kind: str, key: str, body: bytes) -> Record:
    """Return the record in a document. JournalError if it can't be one: the store is damaged or from elsewhere."""
    decoder = _decoders.get(kind)
    if decoder is None:
        raise JournalError(f"the store has an object of the unknown kind {kind!r} (key {key!r})")
    return _decoded(decoder, body, f"{kind} {key!r}")


def decode_task(body: bytes) -> TaskRecord:
    """Return an archived task. Raises JournalError as `decode_record`."""
    return _decoded(_task_decoder, body, "archived task")


def decode_story(body: bytes) -> tuple[StoryLine, ...]:
    """Return the lines in a row of a story; older stores have one in each. Raises JournalError as `decode_record`."""
    lines = _decoded(_story_decoder, body, "line of a story")
    return (lines,) if isinstance(lines, StoryLine) else lines


def _decoded(decoder: "msgspec.json.Decoder[T]", body: bytes, what: str) -> T:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise JournalError(f"the stored {what} can't be read: {error}") from error
