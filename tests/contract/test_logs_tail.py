"""`aws logs tail --follow` against the server, as a process. The command is in version 2 of the AWS CLI only."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.logs import GROUP, STREAM, made, millis, put
from tests.contract.server import ACCESS_KEY_ID, DEADLINE_S, REGION, SECRET, ApiServer
from tests.packages import aws_cli_2

#: The AWS CLI is installed from Debian where it is missing, as root.
pytestmark = pytest.mark.e2e


@pytest.fixture
def logs(server: ApiServer) -> Any:
    return made(server)


def tail(server: ApiServer, tmp_path: Path, *options: str) -> "subprocess.Popen[str]":
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_PAGER": "",
        "PYTHONUNBUFFERED": "1",
    }
    command = [str(aws_cli_2()), "--endpoint-url", server.url, "logs", "tail", GROUP, "--format", "short", *options]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def next_line(server: ApiServer, process: "subprocess.Popen[str]") -> str:
    """Return the text of the next event, behind its time."""
    assert process.stdout is not None
    reading: Callable[[], str] = process.stdout.readline
    line = server.background(reading).result(DEADLINE_S)
    return line.partition(" ")[2].rstrip("\n")


def test_following_prints_each_matching_event_once(server: ApiServer, logs: Any, tmp_path: Path) -> None:
    now = millis(server) - 60_000
    put(logs, [(now, "ERROR 1"), (now, "INFO 1"), (now + 1, "ERROR 2"), (now + 1, "ERROR debug")])
    process = tail(server, tmp_path, "--since", "1h", "--follow", "--filter-pattern", "ERROR -debug")
    try:
        assert [next_line(server, process) for _ in range(2)] == ["ERROR 1", "ERROR 2"]
        # In the millisecond of the last one that was seen, and later.
        put(logs, [(now + 1, "ERROR 3"), (now + 2, "INFO 2"), (now + 5, "ERROR 4")])
        assert [next_line(server, process) for _ in range(2)] == ["ERROR 3", "ERROR 4"]
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


def test_without_following_it_ends_with_the_last_event(server: ApiServer, logs: Any, tmp_path: Path) -> None:
    now = millis(server)
    put(logs, [(now - 7_200_000, "old"), (now - 2, "a"), (now - 1, "b")])
    process = tail(server, tmp_path, "--since", "1h", "--log-stream-names", STREAM)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert [line.partition(" ")[2] for line in out.splitlines()] == ["a", "b"]
    assert (process.returncode, err) == (0, "")


def test_a_pattern_that_is_none_is_refused_readably(server: ApiServer, logs: Any, tmp_path: Path) -> None:
    _, err = tail(server, tmp_path, "--filter-pattern", "user@example").communicate(timeout=DEADLINE_S)
    assert "(InvalidParameterException)" in err
    assert "Invalid character(s) in term '@' at position 5" in err
