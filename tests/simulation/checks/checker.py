"""All checks of a simulation behind one door: the world tells what happens, and whatever must not raises Violation."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from controlplane.state.state import State
from controlplane.state.validate import validate
from controlplane.store.api import Commit
from homeport.ids import InstanceId, TaskId
from homeport.protocol import Assignments, TaskReport
from tests.simulation.checks.assignments import Sets
from tests.simulation.checks.containers import Containers
from tests.simulation.checks.history import History
from tests.simulation.checks.hosts import Hosts
from tests.simulation.checks.pace import Pace
from tests.simulation.checks.promises import Promises
from tests.simulation.checks.rest import Rest
from tests.simulation.checks.services import Services
from tests.simulation.checks.tasks import Tasks
from tests.simulation.checks.violation import Violation
from tests.simulation.clients import Ask, Clients, Refused
from tests.simulation.ledger import ContainerLedgerEntry

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Checker"]

#: The whole state is checked, by a scan of everything, once in so many commits.
_SCAN_EVERY = 100


class Checker:
    """Follows one simulation from its beginning. See the package for what is checked where.

    `now`: the world's time in seconds; `monotonic`: that of the control plane's machine.
    """

    def __init__(self, now: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.commits = 0
        self._now = now
        self.history = History()
        self.tasks = Tasks(self.history)
        self.hosts = Hosts(self.history)
        self.sets = Sets(self.history)
        self.services = Services(self.history, monotonic)
        self.pace = Pace(self.history)
        self.containers = Containers(self.history, self.sets)
        self.promises = Promises(self.history, self.tasks)
        self._rest = Rest(self.history, self.sets, self.containers, self.services)
        self._state: State | None = None

    def loaded(self, state: State) -> None:
        """A control plane has started, and found this."""
        self._state = state
        self.history.loaded(state)
        self.tasks.reset()
        self.hosts.reset()
        self.sets.reset()
        self.services.reset(state)
        self.scan()

    def commit(self, commit: Commit) -> None:
        """A commit was appended to the journal: the state has it already."""
        self.commits += 1
        self.history.commit(commit)
        self.tasks.commit(commit)
        self.hosts.commit(commit)
        self.sets.commit(commit)
        self.services.commit(commit)
        self.pace.commit(commit, self._now())
        if self.commits % _SCAN_EVERY == 0:
            self.scan()

    def scan(self) -> None:
        """Check the whole state: its indexes and sums, and what must hold between records."""
        assert self._state is not None
        try:
            validate(self._state)
        except AssertionError as error:
            raise Violation("the state is sound (2 to 4)", str(error)) from error

    def answer(self, operation: str, document: dict[str, Any], answer: dict[str, Any] | Refused, revision: int) -> None:
        """An answer leaves the control plane; it rests on this revision."""
        self.history.told(revision, f"the answer to {operation}", self._durable)
        self.promises.answer(operation, document, answer, revision)

    def frame(self, instance_id: InstanceId, assignments: Assignments) -> None:
        """Assignments leave the control plane."""
        self.history.told(assignments.revision, f"a set for host {instance_id}", self._durable)
        self.sets.frame(instance_id, assignments)

    def acknowledged(self, seqs: Mapping[TaskId, int]) -> None:
        """Acks of a host's reports leave the control plane."""
        self.history.acknowledged(seqs, self._durable)

    @property
    def _durable(self) -> int:
        """The last revision that the journal has made durable: not by the state's word, which is what is checked."""
        return 0 if self._state is None else self._state.journal.durable_revision

    def report(self, instance_id: InstanceId, report: TaskReport) -> None:
        """A report leaves an agent."""
        self.containers.report(instance_id, report)

    def engine(self, machine: str, entry: ContainerLedgerEntry) -> None:
        """A container has changed."""
        self.containers.engine(machine, entry)

    def request(self, ask: Ask) -> None:
        """A request is over."""
        self.promises.request(ask)

    def rest(self, world: "World", clients: Clients) -> None:
        """Raise unless everything has come to rest, and is as it should be."""
        self._rest.check(world)
        self.promises.rest(clients.ledger)
        self.scan()
