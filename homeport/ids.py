"""Identifiers. NewTypes keep them apart for the type checker; all are made from an injected source of randomness."""

import random
import uuid
from typing import NewType

__all__ = ["InstanceId", "TaskId", "new_hex_id", "new_uuid"]

#: 32 hex digits, the last part of a task's ARN.
TaskId = NewType("TaskId", str)
#: 32 hex digits, the last part of a container instance's ARN.
InstanceId = NewType("InstanceId", str)


def new_hex_id(source: random.Random) -> str:
    """Make an id of 32 hex digits, the form ECS uses for tasks and container instances."""
    return f"{source.getrandbits(128):032x}"


def new_uuid(source: random.Random) -> str:
    """Make a random (version 4) UUID, the form of request, container and activation ids."""
    return str(uuid.UUID(int=source.getrandbits(128), version=4))
