"""How long the cluster takes to be well again after a fault."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from tests.chaos.caller import Caller
from tests.chaos.facts import Happened
from tests.chaos.ledger import Request
from tests.chaos.site import Site
from tests.chaos.workload import ANCHOR, JOB, job_command

__all__ = ["Recoveries", "Recovery"]

_EVERY_S: Final = 0.25
_PATIENCE_S: Final = 240.0


@dataclass(frozen=True, slots=True)
class Recovery:
    """From the end of a fault until it was over for users. Times are in seconds of the monotonic clock.

    `well_at`, None: not within 240 s. `steps`: when each part of it was reached, in seconds after the fault.
    """

    happened: Happened
    well_at: float | None
    steps: dict[str, float]

    @property
    def seconds(self) -> float | None:
        return None if self.well_at is None else self.well_at - self.happened.ended_at


class Recoveries:
    """Measures them, each in a thread of its own.

    Well means: a task that was asked for after the fault has run to its end, every host is connected and its Engine
    answers, and the service that no client touches has the tasks it should have.
    """

    def __init__(self, site: Site, client: Any, new_caller: Callable[[], Caller]) -> None:
        self._site = site
        self._client = client
        self._new_caller = new_caller
        self._threads: list[threading.Thread] = []
        self.found: list[Recovery] = []

    def begin(self, happened: Happened) -> None:
        thread = threading.Thread(target=self._measure, args=(happened, len(self._threads)), daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait(self) -> None:
        """Return when all that were begun are done."""
        for thread in self._threads:
            thread.join()

    def _measure(self, happened: Happened, number: int) -> None:
        deadline = happened.ended_at + _PATIENCE_S
        steps: dict[str, float] = {}
        request = self._accepted(f"probe-{number}", deadline)
        for step, check in (
            ("accepted", lambda: request is not None),
            ("ended", lambda: self._ended(request)),
            ("connected", self._connected),
            ("complete", self._complete),
        ):
            if not self._until(check, deadline):
                break
            steps[step] = round(time.monotonic() - happened.ended_at, 2)
        well_at = happened.ended_at + steps["complete"] if "complete" in steps else None
        self.found.append(Recovery(happened, well_at, steps))

    def _accepted(self, name: str, deadline: float) -> Request | None:
        """Return the request of a task; one that no host has room for, or that isn't accepted, is repeated."""
        caller, attempt = self._new_caller(), 0
        while time.monotonic() < deadline:
            token = f"{name}-{attempt}"
            command = job_command(token, seconds=0, code=0)
            request = caller.call(
                "run_task",
                token,
                meant={"code": 0},
                taskDefinition=JOB,
                count=1,
                startedBy=token,
                overrides={"containerOverrides": [{"name": "app", "command": command}]},
            )
            if request.made:
                return request
            attempt += 1
            time.sleep(_EVERY_S)
        return None

    def _until(self, check: Callable[[], bool], deadline: float) -> bool:
        while time.monotonic() < deadline:
            try:
                if check():
                    return True
            except (BotoCoreError, ClientError):
                pass  # the next fault may have begun
            time.sleep(_EVERY_S)
        return False

    def _connected(self) -> bool:
        hosts = self._site.container_instances(self._client)
        return all(host["agentConnected"] and host["healthStatus"]["overallStatus"] == "OK" for host in hosts)

    def _complete(self) -> bool:
        (anchor,) = self._client.describe_services(services=[ANCHOR])["services"]
        return bool(anchor["runningCount"] >= anchor["desiredCount"])

    def _ended(self, request: Request | None) -> bool:
        assert request is not None
        (task,) = self._client.describe_tasks(tasks=request.made)["tasks"]
        return bool(task["lastStatus"] == "STOPPED")
