"""What is seen during a run: every task's status, which may never go backwards, whatever is killed; and the exit codes
that Engines show, for what is cleaned up before the end.
"""

import re
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from homeport.status import DesiredStatus, TaskStatus
from tests.chaos.site import HostNode

__all__ = ["EngineWatch", "Watch"]

_EVERY_S: Final = 1.0
_AT_A_TIME: Final = 100
#: Agents keep containers of finished tasks for far longer.
_ENGINES_EVERY_S: Final = 10.0
_EXITED: Final = re.compile(r"^(\w+) Exited \((\d+)\)", re.M)


class _Watcher(ABC):
    """Looks every so often, in a thread of its own; others read afterwards what was seen."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=type(self).__name__, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._every_s):
            self._look()

    @abstractmethod
    def _look(self) -> None: ...


class Watch(_Watcher):
    """What was seen of each task."""

    def __init__(self, client: Any) -> None:
        super().__init__(_EVERY_S)
        self._client = client
        self._seen: dict[str, tuple[int, int]] = {}
        self.polls = 0
        self.backwards: list[str] = []
        #: Task ARN -> when it was first seen to be STOPPED, in seconds of the monotonic clock.
        self.stopped_at: dict[str, float] = {}

    def _look(self) -> None:
        # If nobody answers, what is seen next counts.
        with suppress(BotoCoreError, ClientError):
            self._poll()

    def _poll(self) -> None:
        pages = self._client.get_paginator("list_tasks").paginate()
        live = {arn for page in pages for arn in page["taskArns"]}
        asked = sorted(live | (self._seen.keys() - self.stopped_at.keys()))
        for start in range(0, len(asked), _AT_A_TIME):
            for task in self._client.describe_tasks(tasks=asked[start : start + _AT_A_TIME])["tasks"]:
                self._note(task)
        self.polls += 1

    def _note(self, task: dict[str, Any]) -> None:
        arn = task["taskArn"]
        now = (TaskStatus[task["lastStatus"]], DesiredStatus[task["desiredStatus"]])
        before = self._seen.get(arn, now)
        if any(a < b for a, b in zip(now, before, strict=True)):
            self.backwards.append(f"{arn} went back from {before} to {now}")
        self._seen[arn] = now
        if now[0] is TaskStatus.STOPPED:
            self.stopped_at.setdefault(arn, time.monotonic())


class EngineWatch(_Watcher):
    """What Engines show of containers that have ended."""

    def __init__(self, hosts: Iterable[HostNode]) -> None:
        super().__init__(_ENGINES_EVERY_S)
        self._hosts = tuple(hosts)
        #: Container id -> the exit code that was shown last.
        self.exit_codes: dict[str, int] = {}

    def _look(self) -> None:
        for host in self._hosts:
            # One that is away is asked again.
            with suppress(AssertionError, OSError, subprocess.SubprocessError):
                self.note(host.docker("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Status}}"))

    def note(self, shown: str) -> None:
        """Take in `ID Exited (CODE) 2 minutes ago`, one a line; other lines are of containers that haven't ended."""
        self.exit_codes.update((container, int(code)) for container, code in _EXITED.findall(shown))
