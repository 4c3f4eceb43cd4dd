"""The Engine of a simulated machine. It outlives the agents that use it, on virtual time and from a seed.

    engine = SimulatedEngine("host-1", clock, random.Random("host-1"), trace=print)
    seam = engine.link()                # for one agent process: its own DockerEngine, on a connection that isn't there
    engine.hang(40); engine.forget(0)   # faults, at any moment
    engine.ledger                       # what really became of each container

What is simulated is Docker's API, so that all of `agent.engine` takes part. An operation that was handed over goes on
although whoever asked for it is killed: its effect comes at a drawn moment, and its answer is for nobody.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from agent.engine.docker import DockerEngine
from agent.engine.errors import Conflict, EngineError, EngineTimeout, EngineUnavailable, NotFound
from homeport.clock import Clock
from tests.simulation.containers import Containers, Refusal
from tests.simulation.dockerapi import DURATIONS_S, READ_S, READS, DockerApi, Verb, verb_of
from tests.simulation.dockerd import Dockerd, Window
from tests.simulation.dockerlink import Answer, Link, Request, cannot_connect
from tests.simulation.events import EventLog
from tests.simulation.ledger import ContainerLedgerEntry

__all__ = ["SimulatedEngine"]

#: How likely it is that a dying Engine still does what it has just been asked for, and that one which hung does what
#: nobody waits for any more.
_LAST_DEED: Final = 0.3
_LATE_DEED: Final = 0.5


class SimulatedEngine:
    """See the module. `on_change` is told of each change of a container, after it."""

    def __init__(self, name: str, clock: Clock, chance: Random, *, trace: Callable[[str], None]) -> None:
        self.name = name
        self.on_change: Callable[[ContainerLedgerEntry], None] = lambda _: None
        #: Every container that there ever was, oldest first.
        self.ledger: list[ContainerLedgerEntry] = []
        self._clock = clock
        self._chance = chance
        self._trace = trace
        self._dockerd = Dockerd(self._died, self._came_back)
        self._events = EventLog(self._dockerd)
        self._full = Window(self._dockerd)
        self._containers = Containers(clock, chance, self._dockerd, self._events, self._changed)
        self._api = DockerApi(name, chance, self._dockerd, self._containers, self._events, self._full)
        self._live_restore = True
        #: Requests that aren't answered, and whether what they ask for has been done.
        self._open: dict[Request, bool] = {}
        self._faults: defaultdict[Verb, deque[tuple[EngineError, bool]]] = defaultdict(deque)

    def link(self) -> DockerEngine:
        """Return the Engine as one agent process sees it."""
        return DockerEngine(f"unix:///{self.name}", clock=self._clock, client=Link(self._accept).client(), cores=2)

    def add_foreign(
        self, name: str, image: str = "steady", *, labels: Mapping[str, str] | None = None, host_port: int | None = None
    ) -> ContainerLedgerEntry:
        """Let a container run here that isn't Homeport's."""
        ports = {"80/tcp": [{"HostPort": str(host_port)}]} if host_port is not None else {}
        body = {"Labels": dict(labels or {}), "HostConfig": {"PortBindings": ports}}
        return self._api.add(name, image, body).entry

    # ------------------------------------------------------------ faults

    def hang(self, seconds: float) -> None:
        """Answer nothing and do nothing for a while; containers go on. What was asked meanwhile may happen then."""
        self._note(f"hangs for {seconds:g} s")
        self._dockerd.hung.open(seconds)

    def down(self, seconds: float) -> None:
        """Be away for a while; containers go on."""
        self.restart(live_restore=True, seconds=seconds)

    def restart(self, *, live_restore: bool, seconds: float | None = None) -> None:
        """Go, and come back after a while. Without live restore containers end, at the one moment or the other."""
        seconds = self._chance.uniform(0.3, 5) if seconds is None else seconds
        self._note(f"is away for {seconds:g} s{'' if live_restore else ', and takes its containers down'}")
        self._live_restore = live_restore
        self._dockerd.die(seconds)
        if not live_restore and self._chance.random() < 0.5:
            self._containers.kill_all()

    def forget(self, which: int | str) -> bool:
        """Let somebody remove one of our containers by force: by name or id, or by number among them (counted round).

        Tell whether there is one.
        """
        ours = [c for c in self._containers if not c.entry.foreign]
        if isinstance(which, str):
            ours = [c for c in ours if which in (c.entry.id, c.entry.name)]
            which = 0
        if not ours:
            return False
        self._note(f"is told to forget {ours[which % len(ours)].entry.name}")
        self._dockerd.work(0, self._containers.forget, ours[which % len(ours)])
        return True

    def lose_events(self, seconds: float) -> None:
        """Tell nobody what happens for a while, now or later."""
        self._note(f"loses events for {seconds:g} s")
        self._events.losing.open(seconds)

    def late_events(self, seconds: float) -> None:
        """Tell what happens in the next seconds only when they are over."""
        self._note(f"is late with events for {seconds:g} s")
        self._events.late.open(seconds)

    def disk_full(self, seconds: float) -> None:
        """Have no room for a new container, a start or an image for a while."""
        self._note(f"has no disk space for {seconds:g} s")
        self._full.open(seconds)

    def slow(self, factor: float, seconds: float) -> None:
        """Take so many times as long for everything for a while."""
        self._note(f"is slow by {factor:g} for {seconds:g} s")
        self._dockerd.slow(factor, seconds)

    def fail_next(self, verb: Verb, error: EngineError, *, effect: bool = False) -> None:
        """Fail the next call of a verb; with `effect`, after having done it. An EngineTimeout: never answer it."""
        self._faults[verb].append((error, effect))

    # ------------------------------------------------------------ requests

    def _accept(self, request: Request) -> None:
        """Take a request. Raises what connecting fails with while the Engine is away."""
        if self._dockerd.away:
            raise cannot_connect()
        self._open = {other: done for other, done in self._open.items() if not other.over}
        self._open[request] = False
        self._dockerd.work(0, self._serve, request)

    def _serve(self, request: Request) -> None:
        if request.gone and self._chance.random() > _LATE_DEED:
            return
        verb = verb_of(request)
        seconds = self._chance.uniform(*DURATIONS_S.get(verb, READ_S))
        moment = seconds if verb in READS else seconds * self._chance.random()
        self._dockerd.work(moment, self._do, request, seconds - moment)

    def _do(self, request: Request, rest_s: float) -> None:
        """Do what is asked for, and answer after `rest_s`."""
        self._open[request] = True

        def reply(answer: Answer) -> None:
            self._dockerd.work(rest_s, request.answer, answer)

        faults = self._faults.get(verb_of(request))
        if not faults:
            self._handle(request, reply)
            return
        error, effect = faults.popleft()
        if effect:
            self._handle(request, lambda _: None)
        if not isinstance(error, EngineTimeout):
            reply(_failure(error))

    def _handle(self, request: Request, reply: Callable[[Answer], None]) -> None:
        try:
            self._api.handle(request, reply)
        except Refusal as refusal:
            self._note(f"refuses {request.method} {request.path}: {refusal}")
            reply(Answer(refusal.status, {"message": str(refusal)}))

    # ------------------------------------------------------------ its life

    def _died(self) -> None:
        for request, done in self._open.items():
            if not (done or request.over) and request.lines is None and self._chance.random() < _LAST_DEED:
                self._handle(request, lambda _: None)
            request.lose()
        self._open.clear()
        self._events.forget()

    def _came_back(self) -> None:
        self._note("is back")
        if not self._live_restore:
            self._containers.kill_all()
        self._containers.restore()

    def _changed(self, entry: ContainerLedgerEntry, what: str) -> None:
        if not entry.starts and entry.exists:
            self.ledger.append(entry)
        self._note(f"{entry.name} {what}")
        self.on_change(entry)

    def _note(self, text: str) -> None:
        self._trace(f"{self.name}: {text}")


def _failure(error: EngineError) -> Answer:
    """Return what the Engine answers for an error of the seam."""
    status = {NotFound: 404, Conflict: 409}.get(type(error), 500)
    # This text in an answer means that the Engine can't reach what does its work.
    away = ": error while dialing" if isinstance(error, EngineUnavailable) else ""
    return Answer(status, {"message": f"{error}{away}"})
