"""A steady load of clients: tasks run and stopped, services made, changed and deleted, hosts drained."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, Final

from tests.chaos.caller import Caller
from tests.chaos.ledger import Ledger, Outcome, Request
from tests.chaos.workload import JOB, ONLY, ONLY_LOST_AFTER_S, job_command, sleeper_command

__all__ = ["ONLY_MEMBERS", "SERVICE_TAGS", "Load"]

_EXIT_CODES: Final = (0, 0, 0, 1, 3, 42)
_JOB_SECONDS: Final = (0, 0, 1, 4, 12)
_COUNTS: Final = (1, 1, 1, 2, 3)
#: How many tasks that never end one client has at a time.
_SLEEPERS: Final = 4
#: How often a host is taken back before that is given up, each time for as long as a request is repeated.
_PERSISTENCE: Final = 30
#: A second is enough to count as healthy; who isn't heard of for 10 s is replaced.
SERVICE_TAGS: Final = [
    {"key": "homeport:min-healthy-time", "value": "1"},
    {"key": "homeport:lost-after", "value": "10"},
]
#: What makes a service one of which at most one task runs, updates included.
ONLY_MEMBERS: Final[dict[str, Any]] = {
    "deploymentConfiguration": {"maximumPercent": 100, "minimumHealthyPercent": 0},
    "tags": [
        {"key": "homeport:min-healthy-time", "value": "1"},
        {"key": "homeport:lost-after", "value": str(ONLY_LOST_AFTER_S)},
        {"key": "homeport:stop-when-isolated", "value": "true"},
    ],
}


class _Client:
    """One thread's work."""

    def __init__(self, name: str, caller: Caller, random: Random, over: threading.Event, pace: float) -> None:
        self.name = name
        self.call = caller.call
        self.random = random
        self.over = over
        self._pace = pace

    def pause(self, mean_s: float) -> bool:
        """Wait about so long, times the run's pace; return whether to go on."""
        return not self.over.wait(self.random.expovariate(1 / mean_s) * self._pace)

    def token(self) -> str:
        return f"{self.name}-{self.random.getrandbits(64):016x}"

    def run_job(self) -> Request:
        token, code, count = self.token(), self.random.choice(_EXIT_CODES), self.random.choice(_COUNTS)
        command = job_command(token, seconds=self.random.choice(_JOB_SECONDS), code=code)
        return self._run(token, command, count, {"code": code})

    def run_sleeper(self) -> Request:
        token = self.token()
        return self._run(token, sleeper_command(token), 1, {"code": None})

    def _run(self, token: str, command: list[str], count: int, meant: dict[str, Any]) -> Request:
        return self.call(
            "run_task",
            token,
            meant=meant,
            taskDefinition=JOB,
            count=count,
            startedBy=token,
            overrides={"containerOverrides": [{"name": "app", "command": command}]},
        )

    def stop(self, task: str) -> Request:
        token = self.token()
        return self.call("stop_task", token, task=task, reason=f"asked by {token}")


def _run_jobs(client: _Client) -> None:
    while client.pause(2.0):
        request = client.run_job()
        if request.made and client.random.random() < 0.1:
            client.stop(client.random.choice(request.made))


def _run_sleepers(client: _Client) -> None:
    tasks: list[str] = []
    while client.pause(4.0):
        if len(tasks) < _SLEEPERS:
            tasks += client.run_sleeper().made
        else:
            client.stop(tasks.pop(client.random.randrange(len(tasks))))


def _keep_services(client: _Client, revisions: Sequence[str]) -> None:
    while client.pause(4.0):
        name = client.token()
        members: dict[str, Any] = {"taskDefinition": client.random.choice(revisions), "desiredCount": 2}
        made = client.call("create_service", name, serviceName=name, tags=SERVICE_TAGS, **members)
        if made.outcome is not Outcome.ACCEPTED:
            client.call("delete_service", client.token(), service=name, force=True)
            continue
        for _ in range(client.random.randint(1, 5)):
            if not client.pause(12.0):
                return
            _update(client, name, revisions)
        if not client.pause(12.0):
            return
        while client.call("delete_service", client.token(), service=name, force=True).outcome is Outcome.UNANSWERED:
            if client.over.is_set():
                return


def _update(client: _Client, name: str, revisions: Sequence[str]) -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"desiredCount": client.random.randint(0, 4)},
        {"taskDefinition": client.random.choice(revisions)},
        {"taskDefinition": client.random.choice(revisions), "desiredCount": client.random.randint(1, 4)},
        {"forceNewDeployment": True},
    )
    client.call("update_service", client.token(), service=name, **client.random.choice(changes))


def _renew(client: _Client) -> None:
    while client.pause(30.0):
        client.call("update_service", client.token(), service=ONLY, forceNewDeployment=True)


def _drain_hosts(client: _Client, instances: Sequence[str]) -> None:
    def turn(instance: str, status: str) -> bool:
        members: dict[str, Any] = {"containerInstances": [instance], "status": status}
        request = client.call("update_container_instances_state", client.token(), **members)
        return request.outcome is Outcome.ACCEPTED

    while client.pause(30.0):
        instance = client.random.choice(instances)
        turn(instance, "DRAINING")
        client.pause(10.0)
        for _ in range(_PERSISTENCE):
            if turn(instance, "ACTIVE"):
                break
            time.sleep(1.0)  # also when the load is over: who drained a host takes it back


class Load:
    """The clients of a run. `pace`: how many times as long they pause."""

    def __init__(self, client: Any, ledger: Ledger, *, seed: int, pace: float) -> None:
        self._client = client
        self._ledger = ledger
        self._seed = seed
        self._pace = pace
        self._over = threading.Event()
        self._gave_up = threading.Event()
        self.broken: list[str] = []

    def caller(self) -> Caller:
        """Return a further client, for the run's own requests."""
        return Caller(self._client, self._ledger, gave_up=self._gave_up)

    @contextmanager
    def running(self, *, revisions: Sequence[str], instances: Sequence[str]) -> Iterator[None]:
        """Keep up the load inside the block; afterwards each request has been answered or given up."""
        work: dict[str, Callable[[_Client], None]] = {
            "jobs-1": _run_jobs,
            "jobs-2": _run_jobs,
            "sleepers": _run_sleepers,
            "services-1": lambda client: _keep_services(client, revisions),
            "services-2": lambda client: _keep_services(client, revisions),
            "drains": lambda client: _drain_hosts(client, instances),
            "renewals": _renew,
        }
        threads = [threading.Thread(target=self._work, args=item, name=item[0], daemon=True) for item in work.items()]
        for thread in threads:
            thread.start()
        try:
            yield
        except BaseException:
            self._gave_up.set()
            raise
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _work(self, name: str, work: Callable[[_Client], None]) -> None:
        client = _Client(name, self.caller(), Random(f"{self._seed}/{name}"), self._over, self._pace)
        try:
            work(client)
        except Exception as error:  # noqa: BLE001  # a client that broke is the run's failure, whatever it is
            self.broken.append(f"{name}: {error!r}")
