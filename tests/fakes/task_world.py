"""An engine as a plain value, for tests that drive a task's `advance` by hand: no loop, no waiting, copies at will.

`World` holds the truth about one task's containers. `perform` gives an action its effect and returns the fact that
follows; the caller decides when, whether the fact arrives, and what fails instead.
"""

import copy
from dataclasses import dataclass, field
from typing import Literal

from agent.engine.api import ContainerFacts, EngineEvent, ImageFacts
from agent.task.messages import (
    Action,
    CancelPull,
    Create,
    Created,
    Ensure,
    Ensured,
    Fact,
    ImageReady,
    Inspect,
    Inspected,
    Observed,
    Pull,
    Start,
    Started,
    Stop,
    StopReturned,
)
from agent.task.model import TaskState, accepted
from agent.task.step import advance
from homeport.protocol import Assignment
from homeport.status import HealthStatus, TaskStatus

__all__ = ["Box", "Driver", "World"]


@dataclass
class Box:
    """One container as it really is. `starts`: how often its process was started."""

    runtime_id: str
    state: Literal["created", "running", "exited"] = "created"
    exit_code: int | None = None
    oom: bool = False
    started_at: float | None = None
    finished_at: float | None = None
    health: HealthStatus | None = None
    starts: int = 0


@dataclass
class World:
    """All containers of one task, by their name in the definition."""

    boxes: dict[str, Box] = field(default_factory=dict)
    made: int = 0

    def copy(self) -> "World":
        return copy.deepcopy(self)

    def perform(self, action: Action, state: TaskState, now: float) -> Fact | None:
        """Do what an action asks, and return the fact of its success."""
        match action:
            case Ensure(kind):
                return Ensured(kind)
            case Pull(name):
                return ImageReady(name, ImageFacts(image_id="sha256:1", digest="sha256:2"), 1.0)
            case CancelPull():
                return None
            case Create(name):
                if name not in self.boxes:
                    self.made += 1
                    self.boxes[name] = Box(runtime_id=f"id{self.made}")
                return Created(name, self.boxes[name].runtime_id)
            case Start(name):
                self._start(name, state, now)
                return Started(name)
            case Stop(name):
                self.end(name, 143, now)
                return StopReturned(name)
            case Inspect(name):
                return Inspected(name, self.facts(name))

    def _start(self, name: str, state: TaskState, now: float) -> None:
        box = self.boxes.get(name)
        if box is None or box.state == "running":
            return
        if box.state == "exited":
            assert state.container(name).restarting, "a container that has ended is only started by its policy"
        box.state, box.exit_code, box.oom = "running", None, False
        box.started_at, box.finished_at, box.starts = now, None, box.starts + 1

    def end(self, name: str, code: int, now: float, *, oom: bool = False) -> bool:
        """End a container's process; tell whether there was one."""
        box = self.boxes.get(name)
        if box is None or box.state != "running":
            return False
        box.state, box.exit_code, box.finished_at, box.oom = "exited", code, now, oom
        return True

    def facts(self, name: str) -> ContainerFacts | None:
        box = self.boxes.get(name)
        if box is None:
            return None
        return ContainerFacts(
            container_id=box.runtime_id,
            name=f"docker-{name}",
            labels={},
            state=box.state,
            exit_code=box.exit_code,
            oom_killed=box.oom,
            started_at=box.started_at,
            finished_at=box.finished_at,
            health=box.health,
            pid=1 if box.state == "running" else 0,
        )

    def event(
        self, name: str, kind: Literal["create", "start", "die", "oom", "health", "destroy"], now: float
    ) -> Observed:
        box = self.boxes.get(name)
        return Observed(
            name,
            EngineEvent(
                kind=kind,
                at=now,
                container_id=box.runtime_id if box else "",
                exit_code=box.exit_code if box and kind == "die" else None,
            ),
        )


class Driver:
    """Drives one task by hand against a world: `tell` facts, `go` while all goes well, `now` moves when told."""

    def __init__(self, task: Assignment, *, now: float = 1000.0) -> None:
        self.now = now
        self.world = World()
        self.state = accepted(task, {c.name: f"docker-{c.name}" for c in task.spec.containers}, now)
        self.flying: list[Action] = []
        #: Every action that was decided, in order.
        self.actions: list[Action] = []
        self.wake_at: float | None = None

    def tell(self, *facts: Fact) -> "Driver":
        """Advance by these facts."""
        step = advance(self.state, facts, self.now)
        self.state, self.wake_at = step.state, step.wake_at
        self.actions.extend(step.actions)
        for action in step.actions:
            if isinstance(action, CancelPull):
                self.flying = [a for a in self.flying if not (isinstance(a, Pull) and a.container == action.container)]
            else:
                self.flying.append(action)
        return self

    def go(self, *facts: Fact) -> "Driver":
        """Advance, then let everything in flight succeed until nothing is."""
        self.tell(*facts)
        while self.flying:
            fact = self.world.perform(self.flying.pop(0), self.state, self.now)
            assert fact is not None
            self.tell(fact)
        return self

    def go_until(self, kind: type[Action], container: str = "") -> Action:
        """Let things succeed until an action of this kind is in flight (for this container), and take it out."""
        self.tell()
        while True:
            for action in self.flying:
                if isinstance(action, kind) and (not container or getattr(action, "container", "") == container):
                    self.flying.remove(action)
                    return action
            if not self.flying:
                assert self.wake_at is not None, f"no {kind.__name__} comes"
                self.now = max(self.now, self.wake_at)
                self.tell()
                continue
            fact = self.world.perform(self.flying.pop(0), self.state, self.now)
            assert fact is not None
            self.tell(fact)

    def wait(self, seconds: float) -> "Driver":
        """Let time pass, then go on."""
        self.now += seconds
        return self.go()

    def exits(self, name: str, code: int, *, oom: bool = False) -> "Driver":
        """End a container's process, and let the task hear of it."""
        assert self.world.end(name, code, self.now, oom=oom)
        return self.go(self.world.event(name, "die", self.now))

    def becomes(self, name: str, health: HealthStatus) -> "Driver":
        """Change a container's health, and let the task hear of it."""
        self.world.boxes[name].health = health
        return self.go(self.world.event(name, "health", self.now))

    def status(self) -> TaskStatus:
        """Return the task's status."""
        return self.state.status

    def over(self) -> bool:
        """Whether the task has stopped."""
        return self.state.over

    def story(self) -> list[str]:
        """Return the events of the story, oldest first."""
        return [line.event for _, line in self.state.story]

    def told(self, event: str) -> str:
        """Return the newest message of this event."""
        return next(line.message for _, line in reversed(self.state.story) if line.event == event)

    def count(self, kind: type[Action], container: str) -> int:
        """How often an action of this kind was decided for a container."""
        return sum(isinstance(a, kind) and getattr(a, "container", "") == container for a in self.actions)
