"""Services in end-to-end tests: making them, waiting for them, and a steady HTTP load on whatever of them runs."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from tests.e2e.harness import Installation, eventually

__all__ = ["Load", "described", "events", "http_load", "live_tasks", "steady", "web"]

#: What a client tries before it calls a request failed: more tasks than may be dead at a time.
_ATTEMPTS = 5


def web(image: str, version: str, **members: Any) -> dict[str, Any]:
    """A container that answers its version over HTTP on a port the Engine picks."""
    return {
        "name": "web",
        "image": image,
        "entryPoint": ["sh", "-c"],
        "command": [f"mkdir /www; echo {version} > /www/index.html; exec httpd -f -p 8080 -h /www"],
        "portMappings": [{"containerPort": 8080}],
        "memory": 32,
        "stopTimeout": 2,
        **members,
    }


def described(fleet: Installation, name: str) -> dict[str, Any]:
    (service,) = fleet.ecs.describe_services(services=[name])["services"]
    document: dict[str, Any] = service
    return document


def events(fleet: Installation, name: str) -> list[str]:
    """The service's events, oldest first."""
    return [event["message"] for event in reversed(described(fleet, name)["events"])]


def steady(fleet: Installation, name: str, *, within_s: float = 90.0) -> dict[str, Any]:
    """Return the service once its deployment is completed and it has what it should have."""

    def reached() -> dict[str, Any] | None:
        service = described(fleet, name)
        (primary, *others) = service["deployments"]
        assert (others, primary["rolloutState"]) == ([], "COMPLETED"), service
        assert (service["runningCount"], service["pendingCount"]) == (service["desiredCount"], 0), service
        return service

    found = eventually(reached, within_s=within_s)
    assert found is not None
    return found


def live_tasks(fleet: Installation, name: str) -> list[dict[str, Any]]:
    """The service's tasks that should be running."""
    arns = fleet.ecs.list_tasks(serviceName=name)["taskArns"]
    tasks: list[dict[str, Any]] = fleet.ecs.describe_tasks(tasks=arns)["tasks"] if arns else []
    return [task for task in tasks if task["desiredStatus"] == "RUNNING"]


class Load:
    """Counts what the clients of a service see."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []


@contextmanager
def http_load(fleet: Installation, name: str, addresses: dict[str, str], *, every_s: float = 0.02) -> Iterator[Load]:
    """Ask the service's running tasks in turn, all the time; a request fails if it does at several tasks.

    `addresses`: container instance ARN -> where its published ports are reached.
    """
    load = Load()
    over = threading.Event()
    known: list[str] = []

    def discover() -> None:
        while not over.is_set():
            tasks = [task for task in live_tasks(fleet, name) if task["lastStatus"] == "RUNNING"]
            known[:] = [
                f"http://{addresses[task['containerInstanceArn']]}:{binding['hostPort']}/"
                for task in tasks
                for binding in task["containers"][0]["networkBindings"]
            ]
            over.wait(0.1)

    def ask() -> None:
        for turn in cycle(range(10_000)):
            if over.is_set():
                return
            _request(load, tuple(known), turn)
            over.wait(every_s)

    threads = [threading.Thread(target=target, daemon=True) for target in (discover, ask)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: sum(load.answers.values()) > 20)
        load.failures.clear()
        yield load
    finally:
        over.set()
        for thread in threads:
            thread.join(20)


def _request(load: Load, urls: tuple[str, ...], turn: int) -> None:
    problem = "no task is known"
    for attempt in range(_ATTEMPTS if urls else 0):
        try:
            with urlopen(urls[(turn + attempt) % len(urls)], timeout=2) as page:
                load.answers[page.read().decode().strip()] += 1
                return
        except (URLError, OSError) as error:
            problem = repr(error)
    load.failures.append(f"{time.time():.3f} {problem} at {len(urls)} tasks")
