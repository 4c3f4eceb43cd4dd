"""A container's output as long as it is to be shipped: what is known of it beside any connection."""

from dataclasses import dataclass, field

from agent.engine.output import Lost
from homeport.ids import TaskId
from homeport.spec import LogShipping

__all__ = ["LogStream", "PendingGap"]


@dataclass(eq=False)
class PendingGap:
    """Something missing that only the agent knows of, until it is kept. `number`: of the event that says so."""

    lost: Lost
    until_ns: int
    number: int | None = None


@dataclass(eq=False)
class LogStream:
    """One container's output."""

    task_id: TaskId
    container: str
    runtime_id: str
    shipping: LogShipping
    #: The container has stopped for good, and the Engine has written all of its output.
    stopped: bool = False
    #: Everything is kept, or can't ever be.
    done: bool = False
    #: Since when (epoch seconds) there has been output that isn't kept; None if there is none, as far as known.
    behind_since: float | None = None
    gaps: list[PendingGap] = field(default_factory=list)
    #: Since when (epoch nanoseconds) the Engine has had no room to write it; None if it has.
    no_room_since_ns: int | None = None
    #: What was last said of trouble with it, so that it is said once.
    told: str = ""
