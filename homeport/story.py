"""A task's story: what happened to it, when, where and why, in words a user can act on."""

from typing import Annotated

import msgspec

__all__ = ["StoryLine", "Timestamp"]

#: Seconds since the epoch, within the years that a calendar can show (1 to 9999).
Timestamp = Annotated[float, msgspec.Meta(ge=-62_135_596_800, le=253_402_300_799)]


class StoryLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One thing that happened to a task.

    `event` is a short stable word for machines (`placed`, `pulling`, `started`, `exited`, `stopped`, ...); `message` is
    the sentence for people, with the reason. `at` is when it happened by the clock of whoever saw it.
    """

    at: Timestamp
    event: str
    message: str
    #: Who says so: api, scheduler, agent or liveness.
    actor: str
    container: str | None = None
    host: str | None = None
