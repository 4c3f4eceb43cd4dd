"""Blocks: some hundred kilobytes of one stream's events, compressed and checksummed, that explain themselves.

    magic  header's length  payload's length  CRC-32 of header and payload
    header: MessagePack of a BlockHeader
    payload: zstandard of MessagePack columns, of events in the order (time, number): their times, numbers and times of
             ingestion, each as the difference to the one before; kinds; texts

Columns of small differences take a quarter less of the disk than a list of events does. The header repeats the group
and the stream as they were, so that a lost catalog can be made again from blocks alone. Pure: bytes in, bytes out.
"""

import itertools
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import zstandard

from controlplane.logs.api import OVERHEAD_BYTES, LogEvent, LogGroup, LogStream, StoredEvent, size_of
from homeport.protocol import LogKind

__all__ = [
    "BLOCK_BYTES",
    "SPAN_MS",
    "BlockDamaged",
    "BlockHeader",
    "blocks_in",
    "decode_batch",
    "decode_block",
    "encode_batch",
    "encode_block",
    "partition",
]

#: A block is full with so many bytes of text. Large enough to compress well, small enough that the last lines of a
#: stream are there in a few milliseconds.
BLOCK_BYTES: Final = 256 * 1024
#: No block's events are further apart, so that an event of old in a batch doesn't make every search read its block, and
#: a search knows how far before its beginning a block of interest can begin.
SPAN_MS: Final = 3_600_000

_MAGIC: Final = b"HPL1"
_PREFIX: Final = struct.Struct(">4sIII")
_LEVEL: Final = 3
#: Batches live for minutes, and are written in the path that an agent waits for.
_BATCH_LEVEL: Final = 1


class BlockDamaged(Exception):
    """The bytes aren't the block that was written; the text says how one can tell."""


class BlockHeader(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a block holds, and of which stream. `size`: of its events, as CloudWatch counts."""

    group: LogGroup
    stream: LogStream
    count: int
    first_at: int
    last_at: int
    first_number: int
    last_number: int
    size: int
    ingested_at: int


class _Codecs(threading.local):
    """Compressors can't be shared by threads."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=_LEVEL).compress
        self.compress_batch = zstandard.ZstdCompressor(level=_BATCH_LEVEL).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_codecs: Final = _Codecs()
_encode: Final = msgspec.msgpack.Encoder().encode
_decode_header: Final = msgspec.msgpack.Decoder(BlockHeader).decode
_decode_columns: Final = msgspec.msgpack.Decoder(tuple[list[int], list[int], list[int], list[int], list[str]]).decode
_kind: Final = {int(kind): kind for kind in LogKind}.__getitem__
_decode_batch: Final = msgspec.msgpack.Decoder(list[LogEvent]).decode


def encode_batch(events: Sequence[LogEvent]) -> bytes:
    """Return events as the catalog keeps them until they are sealed."""
    return _codecs.compress_batch(_encode(events))


def decode_batch(body: bytes, first_number: int, ingested_at: int) -> list[StoredEvent]:
    """Return the events that `encode_batch` was given as they are stored, in the order of their numbers."""
    return [
        StoredEvent(event.at, number, ingested_at, event.text, event.kind)
        for number, event in enumerate(_decode_batch(_codecs.decompress(body)), first_number)
    ]


def partition(events: Sequence[StoredEvent]) -> Iterator[Sequence[StoredEvent]]:
    """Cut events, in order, into what is to be one block each: of about BLOCK_BYTES, and a span of SPAN_MS at most."""
    begin = size = 0
    rest = sum(len(event.text) for event in events) + OVERHEAD_BYTES * len(events)
    for place, event in enumerate(events):
        # Less than half a block at the end isn't worth one of its own.
        full = size >= BLOCK_BYTES and rest >= BLOCK_BYTES // 2
        if full or event.at - events[begin].at > SPAN_MS:
            yield events[begin:place]
            begin, size = place, 0
        size += len(event.text) + OVERHEAD_BYTES
        rest -= len(event.text) + OVERHEAD_BYTES
    if begin < len(events):
        yield events[begin:]


def encode_block(group: LogGroup, stream: LogStream, events: Sequence[StoredEvent]) -> tuple[BlockHeader, bytes]:
    """Make a block of some events, in order, at least one."""
    numbers = [event.number for event in events]
    header = BlockHeader(
        group=group,
        stream=stream,
        count=len(events),
        first_at=events[0].at,
        last_at=events[-1].at,
        first_number=min(numbers),
        last_number=max(numbers),
        size=sum(size_of(event.text) for event in events),
        ingested_at=max(event.ingested_at for event in events),
    )
    head, payload = _encode(header), _codecs.compress(_encode(_columns(events, numbers)))
    crc = zlib.crc32(payload, zlib.crc32(head))
    return header, b"".join((_PREFIX.pack(_MAGIC, len(head), len(payload), crc), head, payload))


def decode_block(block: bytes) -> list[StoredEvent]:
    """Return a block's events. Raises BlockDamaged."""
    head_length = _check(block)
    ats, numbers, ingested, kinds, texts = _decode_columns(_codecs.decompress(block[_PREFIX.size + head_length :]))
    sums = itertools.accumulate
    return list(map(StoredEvent, sums(ats), sums(numbers), sums(ingested), texts, map(_kind, kinds)))


def _columns(events: Sequence[StoredEvent], numbers: Sequence[int]) -> tuple[list[int] | list[str], ...]:
    return (
        _differences([event.at for event in events]),
        _differences(numbers),
        _differences([event.ingested_at for event in events]),
        [int(event.kind) for event in events],
        [event.text for event in events],
    )


def _differences(values: Sequence[int]) -> list[int]:
    return [values[0], *(later - earlier for earlier, later in itertools.pairwise(values))]


def _check(block: bytes) -> int:
    """Return how long the header of a whole block is. Raises BlockDamaged."""
    if len(block) < _PREFIX.size:
        raise BlockDamaged("it is cut short")
    magic, head_length, payload_length, crc = _PREFIX.unpack_from(block)
    if magic != _MAGIC or len(block) != _PREFIX.size + head_length + payload_length:
        raise BlockDamaged("it isn't where it should be, or is cut short")
    if zlib.crc32(memoryview(block)[_PREFIX.size :]) != crc:
        raise BlockDamaged("its checksum is wrong")
    return int(head_length)


def blocks_in(segment: bytes) -> Iterator[tuple[int, int, BlockHeader]]:
    """Yield (offset, length, header) of the sound blocks of a segment file. Ends where no block begins."""
    offset = 0
    while offset + _PREFIX.size <= len(segment):
        magic, head_length, payload_length, _ = _PREFIX.unpack_from(segment, offset)
        length = _PREFIX.size + head_length + payload_length
        if magic != _MAGIC or offset + length > len(segment):
            return
        block = segment[offset : offset + length]
        try:
            _check(block)
        except BlockDamaged:
            pass  # what follows may be sound
        else:
            yield offset, length, _decode_header(block[_PREFIX.size : _PREFIX.size + head_length])
        offset += length
