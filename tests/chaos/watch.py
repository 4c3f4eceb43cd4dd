"""Polls every task's status during a run: none may ever go backwards, whatever is killed."""

import threading
import time
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from homeport.status import DesiredStatus, TaskStatus

__all__ = ["Watch"]

_EVERY_S: Final = 1.0
_AT_A_TIME: Final = 100


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
