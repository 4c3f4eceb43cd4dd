"""What is seen during a run: every task's status, which may never go backwards, whatever is killed; and the exit codes
that Engines show, for what is cleaned up before the end.
"""

import re
import subprocess
import threading
import time
from collections.abc import Iterable
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


class Watch:
    """What was seen of each task. One thread polls; others read afterwards."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._seen: dict[str, tuple[int, int]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self.polls = 0
        self.backwards: list[str] = []
        #: Task ARN -> when it was first seen to be STOPPED, in seconds of the monotonic clock.
        self.stopped_at: dict[str, float] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            try:
                self._poll()
            except (BotoCoreError, ClientError):
                continue  # nobody answers; what is seen next counts

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


class EngineWatch:
    """What Engines show of containers that have ended. One thread looks; others read afterwards."""

    def __init__(self, hosts: Iterable[HostNode]) -> None:
        self._hosts = tuple(hosts)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="engine-watch", daemon=True)
        #: Container id -> the exit code that was shown last.
        self.exit_codes: dict[str, int] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_ENGINES_EVERY_S):
            for host in self._hosts:
                try:
                    self.note(host.docker("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Status}}"))
                except (AssertionError, OSError, subprocess.SubprocessError):
                    continue  # it is away; it is asked again

    def note(self, shown: str) -> None:
        """Take in `ID Exited (CODE) 2 minutes ago`, one a line; other lines are of containers that haven't ended."""
        self.exit_codes.update((container, int(code)) for container, code in _EXITED.findall(shown))
