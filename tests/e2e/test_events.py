"""The event stream as an operator follows it, while the control plane is killed under load."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.e2e.harness import Daemon, Installation, eventually, installation

pytestmark = pytest.mark.e2e

KILLS = 2


def command(homeport: Installation, *arguments: str) -> list[str]:
    program = "import sys; from homeport.cli import main; sys.argv[0] = 'homeport'; main()"
    return [sys.executable, "-c", program, *arguments, "--data-dir", str(homeport.directory / "cp")]


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@contextmanager
def running_tasks(homeport: Installation, definition: str) -> Iterator[list[str]]:
    """Run tasks without end; yields the ARNs of those whose start was answered."""
    answered: list[str] = []
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            try:
                answered.extend(homeport.run(definition, count=2))
            except (BotoCoreError, ClientError, AssertionError):
                time.sleep(0.05)  # it is being killed

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield answered
    finally:
        done.set()
        thread.join(30)


def more(answered: list[str]) -> None:
    """Wait for some more."""
    before = len(answered)
    eventually(lambda: len(answered) >= before + 20)


def follower(homeport: Installation) -> Daemon:
    return homeport.spawn("follower", *command(homeport, "events", "-f", "--json", "--since", "1h"))


def test_whoever_follows_sees_each_event_once_and_in_order_through_kills(tmp_path: Path) -> None:
    with installation(tmp_path) as homeport:
        homeport.start_control_plane()
        homeport.simulate_hosts(3)
        definition = homeport.register("followed", {"name": "app", "image": "busybox", "memory": 6})
        follow = follower(homeport)
        eventually(lambda: documents(follow.output()))
        with running_tasks(homeport, definition) as answered:
            for _ in range(KILLS):
                more(answered)
                homeport.control_plane.kill()
                homeport.start_control_plane()
            more(answered)

        def all_events() -> list[str]:
            listed = subprocess.run(
                command(homeport, "events", "--json", "--since", "1h"),
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            return [document["id"] for document in documents(listed.stdout)]

        def seen() -> list[str]:
            return [document["id"] for document in documents(follow.output())]

        eventually(lambda: seen() == all_events())
        assert len(set(seen())) == len(seen())
        told = [document for document in documents(follow.output()) if "taskArn" in document["detail"]]
        begun = {document["detail"]["taskArn"] for document in told if document["detail"]["version"] == 1}
        assert set(answered) <= begun
        assert "goes on once it is back" in follow.output()
