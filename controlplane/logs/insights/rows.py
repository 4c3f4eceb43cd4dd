"""Rows, the fields of an event, and pointers to events. Pure."""

import base64
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec

from controlplane.logs.api import StoredEvent
from controlplane.logs.insights.values import KEY_PART_BYTES, shown

__all__ = ["MAX_FIELDS", "Pointer", "Row", "all_fields", "find", "json_of"]

#: How many fields of an event are discovered, as in CloudWatch.
MAX_FIELDS: Final = 200
#: How deep fields are looked for in a JSON event.
_MAX_DEPTH: Final = 32
#: How many times its text's room a JSON value takes.
_JSON_FACTOR: Final = 10
#: The message has not been read as JSON yet.
_UNREAD: Final = object()


#: What every store can take.
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 2)]


class Pointer(msgspec.Struct, frozen=True, array_like=True):
    """Which event a `@ptr` means."""

    group: str
    stream: str
    at: _Number
    number: _Number

    def encode(self) -> str:
        """Return the opaque text."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Pointer":
        """Read such a text. Raises ValueError if it isn't one."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            return msgspec.json.decode(raw, type=cls)
        except (ValueError, msgspec.MsgspecError) as err:
            raise ValueError("not a pointer") from err


class Row:
    """One row on its way: of an event, or what `stats` made. `values`: what commands have added."""

    __slots__ = ("_json", "event", "group", "key", "key_parts", "place", "stream", "values")

    def __init__(self, group: str, stream: str, event: StoredEvent | None, place: tuple[int, ...]) -> None:
        self.group = group
        self.stream = stream
        self.event = event
        self.values: dict[str, Any] = {}
        #: Its place among the rows as they came.
        self.place = place
        #: What it is sorted by, if it is.
        self.key: tuple[Any, ...] = ()
        #: Of how many parts its key is, beside its place.
        self.key_parts = 0
        self._json: Any = _UNREAD

    def document(self) -> Any:
        """Return the event's message as JSON; None if it isn't a JSON object."""
        if self._json is _UNREAD:
            self._json = None if self.event is None else json_of(self.event.text)
        return self._json

    def forget_document(self) -> None:
        """Let go of what `document` keeps, before the row is held: it takes many times the message's room."""
        self._json = _UNREAD

    def pointer(self) -> str | None:
        """Return the `@ptr`."""
        event = self.event
        return None if event is None else Pointer(self.group, self.stream, event.at, event.number).encode()

    def size(self) -> int:
        """Return about how many bytes of memory it takes."""
        size = 400 if self.event is None else 600 + len(self.event.text)
        size += KEY_PART_BYTES * self.key_parts
        for value in self.values.values():
            size += 100
            if isinstance(value, str):
                size += len(value)
            elif isinstance(value, dict | list):
                size += _JSON_FACTOR * len(shown(value))
        return size


def json_of(text: str) -> Any:
    """Return the JSON object that a message is; None if it is none."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def find(document: Any, path: tuple[str, ...]) -> Any:
    """Return what is at a path: keys, and numbers for members of lists. Keys may have dots themselves."""
    for position, part in enumerate(path):
        if isinstance(document, dict):
            if part in document:
                document = document[part]
                continue
            for end in range(position + 2, len(path) + 1):
                key = ".".join(path[position:end])
                if key in document:
                    return find(document[key], path[end:])
            return None
        if not isinstance(document, list) or not part.isdecimal() or int(part) >= len(document):
            return None
        document = document[int(part)]
    return document


def all_fields(text: str) -> dict[str, str]:
    """Return the fields found in a message, by name: the first 200 of a JSON object's leaves."""
    found: dict[str, str] = {}
    for name, value in _leaves("", json_of(text), 0):
        if len(found) == MAX_FIELDS:
            break
        found[name] = shown(value)
    return found


def _leaves(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    prefix = f"{name}." if name else ""
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        for key, member in value.items():
            yield from _leaves(f"{prefix}{key}", member, depth + 1)
    elif isinstance(value, list) and depth < _MAX_DEPTH:
        for index, member in enumerate(value):
            yield from _leaves(f"{prefix}{index}", member, depth + 1)
    elif value is not None:
        yield name, value
