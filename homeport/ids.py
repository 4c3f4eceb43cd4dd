"""Identifiers. NewTypes keep them apart for the type checker; all are made from an injected source of randomness."""

import io
import os
import random
from typing import Final, NewType

__all__ = ["InstanceId", "OsRandom", "TaskId", "new_hex_id", "new_uuid"]

#: 32 hex digits, the last part of a task's ARN.
TaskId = NewType("TaskId", str)
#: 32 hex digits, the last part of a container instance's ARN.
InstanceId = NewType("InstanceId", str)

#: Bits of a UUID that don't tell its version and variant, and those that do, for version 4 (RFC 9562).
_UUID_RANDOM: Final = ~(0xF000 << 64 | 0xC000 << 48)
_UUID_4: Final = 0x4000 << 64 | 0x8000 << 48

#: Bytes that OsRandom takes from the operating system at a time.
_BLOCK_BYTES: Final = 4096


class OsRandom(random.SystemRandom):
    """The operating system's randomness, as good as `random.SystemRandom`'s, taken in blocks.

    Each number would otherwise be a system call, and other threads take their turn at each.
    """

    _block = io.BytesIO()

    def getrandbits(self, k: int, /) -> int:
        """Return a number of `k` random bits. Raises ValueError if that is negative."""
        if k < 0:
            raise ValueError("number of bits must be non-negative")
        size = (k + 7) // 8
        found = self._block.read(size)  # in one step, so that no two threads get the same
        if len(found) < size:
            self._block = io.BytesIO(os.urandom(max(size, _BLOCK_BYTES)))
            found = self._block.read(size)
        return int.from_bytes(found, "big") >> (size * 8 - k)


def new_hex_id(source: random.Random) -> str:
    """Make an id of 32 hex digits, the form ECS uses for tasks and container instances."""
    return f"{source.getrandbits(128):032x}"


def new_uuid(source: random.Random) -> str:
    """Make a random (version 4) UUID, the form of request, container and activation ids."""
    # By hand, since each request needs two, and uuid.UUID takes several times as long.
    bits = source.getrandbits(128) & _UUID_RANDOM | _UUID_4
    digits = f"{bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
