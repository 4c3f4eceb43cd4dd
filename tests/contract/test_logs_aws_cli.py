"""CloudWatch Logs by the AWS CLI, as a process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.contract.logs import GROUP, STREAM, made, millis, put, texts
from tests.contract.server import ACCESS_KEY_ID, REGION, SECRET, ApiServer


def aws_logs(server: ApiServer, *arguments: str) -> Any:
    """Run `aws logs ...` and return what it prints."""
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": "/dev/null",
    }
    aws = Path(sys.executable).parent / "aws"
    done = subprocess.run(
        [aws, "logs", *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def test_get_log_events_pages_both_ways(server: ApiServer) -> None:
    logs = made(server)
    now = millis(server)
    put(logs, [(now - 10_000 + number, str(number)) for number in range(5)])

    def get(*arguments: str) -> Any:
        names = ("--log-group-name", GROUP, "--log-stream-name", STREAM)
        return aws_logs(server, "get-log-events", *names, "--limit", "3", *arguments)

    head = get("--start-from-head")
    assert texts(head) == list("012")
    following = get("--start-from-head", "--next-token", head["nextForwardToken"])
    assert texts(following) == list("34")
    end = get("--start-from-head", "--next-token", following["nextForwardToken"])
    assert (end["events"], end["nextForwardToken"]) == ([], following["nextForwardToken"])
    tail = get()
    assert texts(tail) == list("234")
    assert texts(get("--next-token", tail["nextBackwardToken"])) == list("01")


def test_what_is_put_is_described_and_found(server: ApiServer) -> None:
    logs = made(server)
    now = millis(server)
    names = ("--log-group-name", GROUP, "--log-stream-name", STREAM)
    events = [{"timestamp": now, "message": "an ERROR, ü"}, {"timestamp": now + 1, "message": "fine"}]
    aws_logs(server, "put-log-events", *names, "--log-events", json.dumps(events))
    newest = ("--order-by", "LastEventTime", "--descending", "--max-items", "1")
    found = aws_logs(server, "describe-log-streams", "--log-group-name", GROUP, *newest)
    assert [stream["lastEventTimestamp"] for stream in found["logStreams"]] == [now + 1]
    matching = aws_logs(server, "filter-log-events", "--log-group-name", GROUP, "--filter-pattern", "ERROR")
    assert texts(matching) == ["an ERROR, ü"]
    assert texts(logs.get_log_events(logGroupName=GROUP, logStreamName=STREAM)) == ["an ERROR, ü", "fine"]
