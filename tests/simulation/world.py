"""The world of one simulation: machines, the network between them, and whoever starts what has died.

What systemd does: a daemon that ends is started again after a moment. What a kernel does: a killed process's
connections are closed, and its disk holds what was written.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from controlplane.fleet.registration import RegistrationRefused
from controlplane.state.state import State
from controlplane.store.api import Commit
from homeport.errors import JournalError
from homeport.ids import InstanceId, TaskId
from homeport.protocol import Assignments, Registered, Registration, Reports, ReportsAck, TaskReport
from tests.simulation.clients import Refused, Unanswered
from tests.simulation.controlplane import ControlPlane
from tests.simulation.disk import Disk
from tests.simulation.ledger import ContainerLedgerEntry
from tests.simulation.loop import VirtualLoop
from tests.simulation.machine import SimulatedMachine
from tests.simulation.network import Network, Way
from tests.simulation.plan import Machine, Plan
from tests.simulation.process import MachineClock, Process

__all__ = ["Checks", "World"]

Document = dict[str, Any]

#: A daemon that has ended by itself is started again after this, as systemd does it.
_RESTART_S: Final = 2.0
#: How long a client waits for an answer.
_PATIENCE_S: Final = 20.0
_CLIENTS: Final = "clients"
#: Shares of requests whose way there or back is lost, or takes very long.
_LOST: Final = 0.01
_LATE: Final = 0.02

_assignments: Final = msgspec.json.Decoder(Assignments)
_acks: Final = msgspec.json.Decoder(ReportsAck)
_reports: Final = msgspec.json.Decoder(Reports)
_SETS: Final = b'{"type":"Assignments"'
_ACKS: Final = b'{"type":"ReportsAck"'
_REPORTS: Final = b'{"type":"Reports"'


class Checks(Protocol):
    """Who watches the world. Whatever is raised ends the run."""

    def loaded(self, state: State) -> None:
        """A control plane has started, and found this."""

    def commit(self, commit: Commit) -> None:
        """A commit was appended to the journal."""

    def answer(self, operation: str, document: Document, answer: Document | Refused, revision: int) -> None:
        """An answer leaves the control plane; it rests on this revision."""

    def frame(self, instance_id: InstanceId, assignments: Assignments) -> None:
        """Assignments leave the control plane."""

    def acknowledged(self, seqs: Mapping[TaskId, int]) -> None:
        """Acks of reports leave the control plane."""

    def report(self, instance_id: InstanceId, report: TaskReport) -> None:
        """A report leaves an agent."""

    def engine(self, machine: str, entry: ContainerLedgerEntry) -> None:
        """A container on a machine has changed."""


class World:
    """See the module. `machines` by name; `controlplane` is the one that runs now, or ran last."""

    def __init__(self, loop: VirtualLoop, plan: Plan, root: Path, checks: Checks) -> None:
        """`root`: an empty directory for all disks."""
        self.loop = loop
        self.plan = plan
        self.machines: dict[str, SimulatedMachine] = {}
        #: (second, who, what), as it happened.
        self.trace: list[tuple[float, str, str]] = []
        #: What went wrong in a step that nobody waits for, or in a check.
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()
        #: Faults that have begun, by kind.
        self.faults: dict[str, int] = {}
        self.network = Network(loop, self.chance("network"), plan.settings.latency_s)
        self.controlplane: ControlPlane
        self._checks = checks
        self._root = root
        self._clock = MachineClock(loop)
        self.controlplane_clock = MachineClock(loop)
        self.controlplane_disk = Disk(
            loop, root / "controlplane", self.chance("disk controlplane"), plan.settings.sync_s
        )
        self._outside = Process(loop, _CLIENTS, self._clock)
        self._luck = self.chance("clients' network")
        self.processes: dict[str, Process] = {}
        #: Daemons that are to stay down for now -> until when.
        self._down_until: dict[str, float] = {}
        self._torn: set[str] = set()
        #: Requests that a control plane is at.
        self._open: dict[asyncio.Future[Document], Process] = {}
        loop.set_exception_handler(lambda _, context: self._unhandled(context))

    def chance(self, name: str) -> random.Random:
        """Return a source of randomness for a part; leaving out an act doesn't change that of other parts."""
        return random.Random(f"{self.plan.seed} {name}")

    def say(self, who: str, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append((round(self.loop.now, 6), who, what.replace(str(self._root), "")))

    def fail(self, error: BaseException) -> None:
        """End the run. The first failure counts."""
        if self.failure is None:
            self.failure = error
            self.failed.set()

    def checked(self, check: Callable[..., None], *arguments: Any) -> None:
        """Run a check; what it raises ends the run, and not the process that is being watched."""
        try:
            check(*arguments)
        except Exception as error:  # noqa: BLE001 - told by `failure`
            self.fail(error)

    def _unhandled(self, context: dict[str, Any]) -> None:
        error = context.get("exception") or RuntimeError(context["message"])
        if isinstance(_first(error), JournalError):
            return  # of a session; the journal itself ends the process
        self.say("loop", f"{context['message']}: {error!r}")
        self.fail(error)

    # ------------------------------------------------------------ daemons

    def start_controlplane(self) -> None:
        """Start a control plane on its disk as it is."""
        process = Process(
            self.loop, "controlplane", self.controlplane_clock, offload=self.controlplane_disk, on_death=self._died
        )
        controlplane = self.controlplane = ControlPlane(
            self.controlplane_disk.directory,
            self.controlplane_clock,
            self.chance(f"controlplane {self.loop.steps}"),
            heartbeat_s=self.plan.settings.heartbeat_s,
            loaded=lambda state: self.checked(self._checks.loaded, state),
            committed=lambda commit: self.checked(self._checks.commit, commit),
        )

        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(controlplane.run())
                await controlplane.up.wait()
                self.network.listen(process, controlplane.serve)

        self._run("controlplane", process, run)

    def start_agent(self, machine: SimulatedMachine) -> None:
        """Start an agent on its machine's disk as it is."""
        process = Process(self.loop, machine.name, machine.clock, offload=machine.disk, on_death=self._died)
        self._run(machine.name, process, machine.run_agent)

    def _run(self, name: str, process: Process, main: Callable[[], Any]) -> None:
        self.processes[name] = process
        self.say(name, "starts")
        task = process.spawn(main(), name)
        task.add_done_callback(lambda done: self._ended(name, process, done))

    def _ended(self, name: str, process: Process, task: "asyncio.Task[None]") -> None:
        """A daemon has ended by itself: an agent whose host was deregistered for good, others to be started again."""
        error = None if task.cancelled() else task.exception()
        self.say(name, f"ends: {_leaves(error)}" if error else "ends")
        process.over()
        self._disk(name).crash(torn=False)  # a kernel closes what it has left open
        self._close(process)
        if error is not None or name == "controlplane":
            self.loop.after(_RESTART_S, lambda: self._restart(name), None)

    def kill(self, name: str, *, after_steps: int = 0, down_s: float = 0.0, torn: bool = False) -> None:
        """Kill a daemon, at once or at a step to come; it is started again after `down_s`."""
        process = self.processes.get(name)
        if process is None or not process.alive:
            return
        self._down_until[name] = down_s
        if torn:
            self._torn.add(name)
        if after_steps:
            process.kill_after(after_steps)
        else:
            process.kill()

    def _died(self, process: Process) -> None:
        name = process.name
        down_s = max(0.1, self._down_until.pop(name, 0.0))
        self.say(name, f"is killed, for {down_s:.1f} s")
        self._disk(name).crash(torn=name in self._torn)
        self._torn.discard(name)
        self._close(process)
        self.loop.after(down_s, lambda: self._restart(name), None)

    def _disk(self, name: str) -> Disk:
        return self.controlplane_disk if name == "controlplane" else self.machines[name].disk

    def _close(self, process: Process) -> None:
        self.network.process_died(process)
        for answer in [answer for answer, of in self._open.items() if of is process]:
            del self._open[answer]
            if not answer.done():
                answer.set_exception(Unanswered("connection reset by peer"))

    def _restart(self, name: str) -> None:
        if name == "controlplane":
            self.start_controlplane()
        else:
            self.start_agent(self.machines[name])

    # ------------------------------------------------------------ hosts

    def add_machine(self, plan: Machine) -> None:
        """Add a machine; it joins, and its agent runs. Nothing if there is one of that name."""
        if plan.name in self.machines:
            return
        machine = SimulatedMachine(
            self.loop,
            self.network,
            plan,
            self._root,
            chance=self.chance,
            sync_s=self.plan.settings.sync_s,
            trace=self.say,
        )
        machine.engine.on_change = lambda entry: self.checked(self._checks.engine, plan.name, entry)
        for number in range(plan.foreign):
            machine.engine.add_foreign(f"foreign-{number}")
        self.machines[plan.name] = machine
        link = self.network.link(plan.name)
        link.down.watch = lambda frame: self._saw_down(machine, frame)
        link.up.watch = lambda frame: self._saw_up(machine, frame)
        self._outside.spawn(self._join(machine), f"{plan.name} joins")

    async def _join(self, machine: SimulatedMachine) -> None:
        """Do what `homeport add-node` and the installer do, until it is done."""
        while True:
            try:
                made = await self.call("CreateActivation", {"IamRole": "homeport"}, service="ssm")
                registration = Registration(
                    activation_id=made["ActivationId"],
                    activation_code=made["ActivationCode"],
                    public_key=machine.identity.public_key,
                    facts=await machine.facts(),
                )
                machine.joined(await self._request(partial(self._register, registration)))
            except (Unanswered, Refused, RegistrationRefused) as error:
                self.say(machine.name, f"can't join: {error}")
                await asyncio.sleep(1.0)
            else:
                self.start_agent(machine)
                return

    async def _register(self, registration: Registration) -> Registered:
        return await self.controlplane.register(registration)

    def instance_arn(self, machine: str) -> str | None:
        """See clients.Cluster."""
        known = self.machines.get(machine)
        return known.identity.instance_arn or None if known is not None else None

    def _saw_down(self, machine: SimulatedMachine, frame: bytes) -> None:
        if frame.startswith(_SETS):
            self.checked(self._checks.frame, machine.identity.instance_id, _assignments.decode(frame))
        elif frame.startswith(_ACKS):
            self.checked(self._checks.acknowledged, _acks.decode(frame).seqs)

    def _saw_up(self, machine: SimulatedMachine, frame: bytes) -> None:
        if frame.startswith(_REPORTS):
            for report in _reports.decode(frame).tasks:
                self.checked(self._checks.report, machine.identity.instance_id, report)

    # ------------------------------------------------------------ requests

    async def call(self, operation: str, document: Document, *, service: str = "ecs") -> Document:
        """See clients.Cluster."""
        revision = 0

        def decided(at: int) -> None:
            nonlocal revision
            revision = at

        async def answer() -> Document:
            controlplane = self.controlplane
            try:
                answer = await controlplane.call(service, operation, document, decided)
            except Refused as refused:
                self.checked(self._checks.answer, operation, document, refused, revision)
                raise
            self.checked(self._checks.answer, operation, document, answer, revision)
            return answer

        answered: Document = await self._request(answer)
        return answered

    async def _request(self, serve: Callable[[], Any]) -> Any:
        """Have the control plane carry something out, over a network that may lose or delay it."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._round_trip(serve)
        except TimeoutError:
            raise Unanswered("no answer in time") from None

    async def _round_trip(self, serve: Callable[[], Any]) -> Any:
        link = self.network.link(_CLIENTS)
        handed_over: asyncio.Future[Any] = self.loop.create_future()
        self._outside.spawn(self._hand_over(link.up, handed_over, serve), "request")
        answer = await handed_over
        await self._way(link.down)
        return answer

    async def _hand_over(self, way: Way, answer: "asyncio.Future[Any]", serve: Callable[[], Any]) -> None:
        """Bring a request to the control plane, even after its client has given up."""
        await self._way(way)
        process = self.processes.get("controlplane")
        if process is None or not process.alive or not self.controlplane.up.is_set():
            if not answer.done():
                answer.set_exception(Unanswered("connection refused"))
            return
        self._open[answer] = process

        async def work() -> None:
            try:
                result = await serve()
            except (Refused, RegistrationRefused) as error:
                if not answer.done():
                    answer.set_exception(error)
            except JournalError as error:
                # The process is about to end; as far as its client knows, it has.
                if not answer.done():
                    answer.set_exception(Unanswered(str(error)))
            except Exception as error:  # noqa: BLE001 - a 500, which must not be
                self.fail(error)
            else:
                if not answer.done():
                    answer.set_result(result)
            finally:
                self._open.pop(answer, None)

        process.spawn(work(), "request")

    async def _way(self, way: Way) -> None:
        luck = self._luck.random()
        if luck < _LOST:
            await asyncio.sleep(_PATIENCE_S)
        elif luck < _LOST + _LATE:
            await asyncio.sleep(self._luck.uniform(0.0, 3 * _PATIENCE_S))
        await self.network.travel(way)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _leaves(error: BaseException | None) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_leaves(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"
