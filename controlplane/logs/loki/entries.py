"""Events as entries of Loki, and back. Pure.

Loki orders by nanoseconds: an event has those of its millisecond and, below, the last six digits of its number, so that
events of one millisecond keep their order and pushing the same event twice is the same entry twice, which Loki keeps
once. A text longer than Loki takes is cut into parts, each with a mark in front.
"""

import gzip
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from controlplane.logs.api import StoredEvent
from homeport.protocol import LogKind

__all__ = ["NS_PER_MS", "Found", "StreamLabels", "found_in", "group_id_label", "joined", "push_body", "stream_id_label"]

NS_PER_MS: Final = 1_000_000
#: Loki's default for a line is 256 KiB.
_PART_BYTES: Final = 200_000

_NUMBER: Final = "homeport_number"
_INGESTED_AT: Final = "homeport_ingested_at"
_KIND: Final = "homeport_kind"
_PART: Final = "homeport_part"

_encode: Final = msgspec.json.Encoder().encode
#: Speed over size: what goes over the wire is small already.
_GZIP_LEVEL: Final = 1


class StreamLabels(msgspec.Struct, frozen=True):
    """What a stream is called in Loki. `epoch`: which catalog it is in; the ids are those of the catalog.

    `late`: for events that come too late for their stream, the hour that they are of; "" for the others.
    """

    epoch: str
    group: str
    group_id: int
    stream: str
    stream_id: int
    late: str = ""

    def labels(self) -> dict[str, str]:
        """Return Loki's labels."""
        late = {"homeport_late": self.late} if self.late else {}
        return late | {
            "homeport_group": self.group,
            "homeport_stream": self.stream,
            "homeport_group_id": group_id_label(self.epoch, self.group_id),
            "homeport_stream_id": stream_id_label(self.epoch, self.stream_id),
        }


class Found(msgspec.Struct, frozen=True, gc=False):
    """An entry that a query gave. `part`: which of how many a text was cut into."""

    stream_id: str
    stream: str
    ns: int
    number: int
    ingested_at: int
    kind: LogKind
    text: str
    part: tuple[int, int] = (1, 1)


def group_id_label(epoch: str, group_id: int) -> str:
    """Return the label that only this group has, of all that ever were."""
    return f"{epoch}-{group_id}"


def stream_id_label(epoch: str, stream_id: int) -> str:
    """Return the label that only this stream has, of all that ever were."""
    return f"{epoch}-{stream_id}"


# ---------------------------------------------------------------- to Loki


def push_body(streams: Iterable[tuple[StreamLabels, Sequence[StoredEvent]]]) -> bytes:
    """Return the body of a push: JSON, packed with gzip."""
    document = {
        "streams": [
            {"stream": labels.labels(), "values": [value for event in events for value in _values(event)]}
            for labels, events in streams
        ]
    }
    return gzip.compress(_encode(document), _GZIP_LEVEL)


def _values(event: StoredEvent) -> list[list[Any]]:
    ns = str(event.at * NS_PER_MS + event.number % NS_PER_MS)
    metadata = {_NUMBER: str(event.number), _INGESTED_AT: str(event.ingested_at), _KIND: str(int(event.kind))}
    if len(event.text) * 4 <= _PART_BYTES or len(event.text.encode()) <= _PART_BYTES:
        return [[ns, event.text, metadata]]
    parts = _cut(event.text)
    return [
        [ns, f"[{n}/{len(parts)}] {part}", metadata | {_PART: f"{n}/{len(parts)}"}] for n, part in enumerate(parts, 1)
    ]


def _cut(text: str) -> list[str]:
    """Cut a text into parts of _PART_BYTES at most, never within a character."""
    step = _PART_BYTES if text.isascii() else _PART_BYTES // 4
    return [text[begin : begin + step] for begin in range(0, len(text), step)]


# ---------------------------------------------------------------- from Loki


def found_in(stream: Mapping[str, str], values: Iterable[Sequence[Any]]) -> Iterable[Found]:
    """Yield the entries of one stream of a query's answer; those that Homeport didn't write are passed over."""
    stream_id, name = stream.get("homeport_stream_id", ""), stream.get("homeport_stream", "")
    for ns, line, *rest in values:
        metadata = rest[0].get("structuredMetadata", {}) if rest else {}
        try:
            number, ingested_at = int(metadata[_NUMBER]), int(metadata[_INGESTED_AT])
            kind = LogKind(int(metadata[_KIND]))
            part, _, parts = metadata.get(_PART, "1/1").partition("/")
            yield Found(stream_id, name, int(ns), number, ingested_at, kind, line, (int(part), int(parts)))
        except (KeyError, ValueError):
            continue


def joined(entries: Iterable[Found]) -> list[Found]:
    """Return whole events, each once, in the order (millisecond, stream's name, number). Parts must all be there."""
    cut: dict[tuple[str, int], dict[int, Found]] = {}
    whole: dict[tuple[str, int], Found] = {}
    for entry in entries:
        key = (entry.stream_id, entry.number)
        if entry.part[1] == 1:
            whole[key] = entry
        else:
            cut.setdefault(key, {})[entry.part[0]] = entry
    for key, parts in cut.items():
        texts = [parts[n].text.partition("] ")[2] for n in sorted(parts)]
        whole[key] = msgspec.structs.replace(parts[min(parts)], text="".join(texts), part=(1, 1))
    return sorted(whole.values(), key=lambda entry: (entry.ns // NS_PER_MS, entry.stream, entry.number))
