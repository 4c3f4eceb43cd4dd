"""Answers that go on: AWS's event stream, frames of binary headers and JSON over one HTTP answer.

A frame is: its length and that of its headers (32 bits each), a CRC of these two, the headers, the payload, and a CRC
of all before. The first one is the `initial-response`: members of the answer that aren't streamed, here none.
"""

import struct
import zlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

__all__ = ["CONTENT_TYPE", "INITIAL", "EventStream", "StreamedEvent"]

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"

#: The header's value is a text with a length of 16 bits.
_STRING: Final = 7
_CRC_BYTES: Final = 4
_PRELUDE: Final = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class StreamedEvent:
    """One event: the member of the stream's shape that it is, and its members. An error ends the stream."""

    type: str
    body: dict[str, Any]
    is_error: bool = False

    def encode(self) -> bytes:
        """Return its frame."""
        kind = "exception" if self.is_error else "event"
        headers = b"".join(
            _header(name, value)
            for name, value in (
                (":message-type", kind),
                (f":{kind}-type", self.type),
                (":content-type", "application/json"),
            )
        )
        payload = msgspec.json.encode(self.body)
        length = _PRELUDE.size + _CRC_BYTES + len(headers) + len(payload) + _CRC_BYTES
        prelude = _PRELUDE.pack(length, len(headers))
        frame = prelude + _crc(prelude) + headers + payload
        return frame + _crc(frame)


#: What every stream begins with.
INITIAL: Final = StreamedEvent("initial-response", {})


@dataclass(frozen=True, slots=True)
class EventStream:
    """What a handler returns to answer for longer. `events` is closed when its reader has gone."""

    events: AsyncGenerator[StreamedEvent]


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return struct.pack(">B", len(key)) + key + struct.pack(">BH", _STRING, len(text)) + text


def _crc(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))
