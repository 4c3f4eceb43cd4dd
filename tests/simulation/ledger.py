"""What really became of each container of a simulated Engine, whatever the Engine told, and to whom."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Asked", "ContainerLedgerEntry", "End"]


class End(NamedTuple):
    """An end of a container's process. `at`: epoch seconds by the machine's clock.

    `why`: `exited` (by itself), `stopped` (it obeyed the stop signal), `killed` (it didn't, or was removed), `oom`,
    `engine` (a restarted Engine takes its containers down), `forgotten` (somebody removed it behind our back).
    """

    at: float
    exit_code: int
    why: str


class Asked(NamedTuple):
    """Something a client asked of a container: `start`, `stop` or `remove`. It may have come to nothing."""

    at: float
    verb: str


@dataclass(eq=False, slots=True)
class ContainerLedgerEntry:
    """A container that is, or was. It lives as long as the simulation."""

    id: str
    name: str
    labels: dict[str, str]
    image: str
    #: What it was made from: the Engine's create body.
    body: dict[str, Any]
    created_at: float
    #: Not Homeport's: nobody may ask anything of it.
    foreign: bool = False
    starts: list[float] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    removed_at: float | None = None
    #: Host ports it has now, as (protocol, port).
    ports: frozenset[tuple[str, int]] = frozenset()

    @property
    def running(self) -> bool:
        """Whether its process is there, whatever the Engine knows."""
        return len(self.starts) > len(self.ends)

    @property
    def exists(self) -> bool:
        """Whether it has not been removed."""
        return self.removed_at is None

    @property
    def exit_code(self) -> int | None:
        """The code of its last end; None while it runs, and before it ever did."""
        return self.ends[-1].exit_code if self.ends and not self.running else None
