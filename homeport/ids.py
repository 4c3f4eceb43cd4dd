"""Identifiers. NewTypes keep them apart for the type checker; all are made from an injected source of randomness."""

import random
from typing import Final, NewType

__all__ = ["InstanceId", "TaskId", "new_hex_id", "new_uuid"]

#: 32 hex digits, the last part of a task's ARN.
TaskId = NewType("TaskId", str)
#: 32 hex digits, the last part of a container instance's ARN.
InstanceId = NewType("InstanceId", str)

#: Bits of a UUID that don't tell its version and variant, and those that do, for version 4 (RFC 9562).
_UUID_RANDOM: Final = ~(0xF000 << 64 | 0xC000 << 48)
_UUID_4: Final = 0x4000 << 64 | 0x8000 << 48


def new_hex_id(source: random.Random) -> str:
    """Make an id of 32 hex digits, the form ECS uses for tasks and container instances."""
    return f"{source.getrandbits(128):032x}"


def new_uuid(source: random.Random) -> str:
    """Make a random (version 4) UUID, the form of request, container and activation ids."""
    # By hand, since each request needs two, and uuid.UUID takes several times as long.
    bits = source.getrandbits(128) & _UUID_RANDOM | _UUID_4
    digits = f"{bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
