"""What containers say, end to end: through kill -9 of everyone on the way, full disks, and CloudWatch's own tools."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Installation, eventually
from tests.e2e.logs import GROUP, awslogs, chatter, kept, read_all, task_id
from tests.packages import aws_cli_2

pytestmark = pytest.mark.e2e


def test_a_container_that_says_100_lines_and_crashes_at_once_has_said_them_all(
    homeport: Installation, busybox: str
) -> None:
    script = 'n=0; while [ $n -lt 100 ]; do echo "line $n ."; n=$((n + 1)); done; echo oops >&2; exit 3'
    app = {"name": "app", "image": busybox, "command": ["sh", "-c", script], "logConfiguration": awslogs()}
    definition = homeport.register("crash", app)
    arns = homeport.run(definition, count=5)
    logs = homeport.client("logs")
    for arn in arns:
        assert homeport.wait(arn, "STOPPED")["containers"][0]["exitCode"] == 3
        eventually(lambda arn=arn: len(kept(logs, arn).numbers) == 100)  # type: ignore[misc]
        found = kept(logs, arn)
        assert found.problem(100) == ""
        assert found.others == ["oops"]


def test_a_flood_is_kept_whole(homeport: Installation, busybox: str) -> None:
    """Faster than the Engine writes: its buffer for `non-blocking`, which drops silently, is nobody's default."""
    lines = 200_000
    program = f'BEGIN {{ for (n = 0; n < {lines}; n++) print "line", n, "{"x" * 85}" }}'
    app = {"name": "app", "image": busybox, "command": ["awk", program], "logConfiguration": awslogs()}
    (arn,) = homeport.run(homeport.register("flood", app))
    homeport.wait(arn, "STOPPED", within_s=60)
    logs = homeport.client("logs")
    eventually(lambda: _complete(logs, arn, lines), within_s=60)
    found = kept(logs, arn)
    assert (found.problem(lines), found.others) == ("", [])


def test_every_line_is_kept_once_through_kills_of_both_daemons(homeport: Installation, busybox: str) -> None:
    _through_kills(homeport, busybox, tasks=20, seconds=20, per_second=10)


@pytest.mark.slow
def test_200_containers_with_1000_lines_a_second_for_a_minute_through_kills_of_both_daemons(
    homeport: Installation, busybox: str
) -> None:
    _through_kills(homeport, busybox, tasks=200, seconds=60, per_second=5)


def _through_kills(homeport: Installation, busybox: str, *, tasks: int, seconds: int, per_second: int) -> None:
    """Kill the agent, then the control plane, while all talk; neither holds the containers up or loses a line."""
    app = chatter(busybox, seconds=seconds, per_second=per_second)
    definition = homeport.register("chatter", {**app, "logConfiguration": awslogs()})
    arns = [arn for _ in range(tasks // 10) for arn in homeport.run(definition, count=10)]
    for arn in arns:
        homeport.wait(arn, "RUNNING", within_s=120)
    last = homeport.containers("status=running")[-1]

    homeport.daemons[-1].kill()  # the agent
    _goes_on(homeport, last)
    homeport.start_agent()
    homeport.control_plane.kill()
    _goes_on(homeport, last)
    homeport.start_control_plane()

    for arn in arns:
        assert homeport.wait(arn, "STOPPED", within_s=seconds + 120)["containers"][0]["exitCode"] == 0
    logs, lines = homeport.client("logs"), seconds * per_second
    eventually(lambda: all(_complete(logs, arn, lines) for arn in arns), within_s=60, every_s=1)
    found = [kept(logs, arn) for arn in arns]
    assert [each.problem(lines) for each in found if each.problem(lines)] == []
    assert [each.others for each in found if each.others] == []  # the Engine's files hold far more: no gaps here


def _goes_on(homeport: Installation, container: str) -> None:
    """The container says more, whoever isn't there to hear it."""

    def said() -> int:
        return len(homeport.docker("logs", container).splitlines())

    before = said()
    eventually(lambda: said() > before, within_s=30, every_s=0.2)


def _complete(logs: Any, arn: str, lines: int) -> bool:
    """Whether the last line is kept (or a gap is)."""
    stream = f"ecs/app/{task_id(arn)}"
    events = logs.get_log_events(logGroupName=GROUP, logStreamName=stream, limit=1)["events"]
    last = events[-1]["message"] if events else "line"
    return f"line {lines - 1} " in last or not last.startswith("line")


def test_an_outage_of_the_log_store_stops_nobody_and_heals(
    control_plane: Installation, busybox: str, tmp_path: Path
) -> None:
    """The disk under the control plane's logs is full for a while: tasks start, run and stop, and say why."""
    homeport = control_plane
    homeport.stop_all()
    with _small_disk(tmp_path / "cp/controlplane/logs", "6m") as disk:
        homeport.start_control_plane()
        homeport.join()
        homeport.start_agent()
        ballast = disk / "ballast"
        with ballast.open("wb") as out:
            _fill(out.fileno())
        noise = "$(head -c 200 /dev/urandom | base64 -w0)"
        script = f'n=0; while [ $n -lt 2000 ]; do echo "line $n {noise}"; n=$((n + 1)); done'
        app = {"name": "app", "image": busybox, "command": ["sh", "-c", script], "logConfiguration": awslogs()}
        (arn,) = homeport.run(homeport.register("flood", app))
        homeport.wait(arn, "STOPPED", within_s=60)
        eventually(lambda: "stays on its host for now" in _story(homeport, arn), within_s=30)
        assert str(disk) in _story(homeport, arn)
        assert homeport.run(homeport.register("next", {"name": "app", "image": busybox, "command": ["true"]}))

        ballast.unlink()
        logs = homeport.client("logs")
        eventually(lambda: kept(logs, arn).problem(2000) == "" and len(kept(logs, arn).numbers) == 2000, within_s=60)
        eventually(lambda: "is kept again" in _story(homeport, arn))


@contextmanager
def _small_disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def _fill(descriptor: int) -> None:
    """Write until there is no room."""
    try:
        while True:
            os.write(descriptor, bytes(64 * 1024))
    except OSError:
        pass


def _story(homeport: Installation, arn: str) -> str:
    done = _homeport(homeport, "story", task_id(arn))
    return done.stdout


def _homeport(homeport: Installation, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).parent / "homeport"), *arguments, "--data-dir", str(homeport.directory / "cp")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_aws_cli_tails_what_a_task_says(homeport: Installation, busybox: str, tmp_path: Path) -> None:
    app = chatter(busybox, seconds=30, per_second=2)
    (arn,) = homeport.run(homeport.register("tailed", {**app, "logConfiguration": awslogs()}))
    homeport.wait(arn, "RUNNING")
    logs = homeport.client("logs")
    eventually(lambda: list(read_all(logs, GROUP, f"ecs/app/{task_id(arn)}")))
    key = json.loads((homeport.directory / "cp/controlplane/credentials.json").read_text())
    endpoint = ("--endpoint-url", homeport.endpoint["local_url"])
    command = [str(aws_cli_2()), *endpoint, "logs", "tail", GROUP, "--follow", "--since", "10m", "--format", "short"]
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": key["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": key["secret_access_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "PYTHONUNBUFFERED": "1",
    }
    seen: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as tail:
        assert tail.stdout is not None
        try:
            for line in tail.stdout:
                seen.append(int(line.split(" line ")[1].split()[0]))
                if len(seen) >= 20:
                    break
        finally:
            tail.terminate()
    assert seen == list(range(20))
    homeport.ecs.stop_task(task=arn)


def test_the_last_words_of_a_container_on_a_host_that_was_cut_off_are_read_when_it_is_back(
    homeport: Installation, busybox: str
) -> None:
    script = "trap 'exit 0' TERM; echo hello; while [ ! -e /tmp/die ]; do sleep 0.1; done; echo last words; exit 7"
    app = {"name": "app", "image": busybox, "command": ["sh", "-c", script], "logConfiguration": awslogs()}
    (arn,) = homeport.run(homeport.register("dying", app))
    container = homeport.wait(arn, "RUNNING")["containers"][0]["runtimeId"]
    homeport.control_plane.kill()
    homeport.docker("exec", container, "touch", "/tmp/die")
    eventually(lambda: homeport.docker("inspect", "-f", "{{.State.Status}}", container) == "exited")
    homeport.daemons[-1].kill()  # the agent as well
    homeport.start_control_plane()
    homeport.start_agent()
    assert homeport.wait(arn, "STOPPED")["containers"][0]["exitCode"] == 7
    logs = homeport.client("logs")
    stream = f"ecs/app/{task_id(arn)}"
    eventually(lambda: [e["message"] for e in read_all(logs, GROUP, stream)] == ["hello", "last words"])


def test_what_a_lost_host_has_said_is_read_all_the_same(homeport: Installation, busybox: str) -> None:
    app = {"name": "app", "image": busybox, "command": ["sh", "-c", "echo hello; exec sleep 600"]}
    (arn,) = homeport.run(homeport.register("lost", app))  # no logConfiguration at all
    homeport.wait(arn, "RUNNING")
    logs = homeport.client("logs")
    stream = f"homeport/app/{task_id(arn)}"
    eventually(lambda: [e["message"] for e in read_all(logs, "/homeport/default/lost", stream)] == ["hello"])
    homeport.daemons[-1].kill()
    eventually(lambda: "is not connected" in _homeport(homeport, "logs", task_id(arn)).stderr)
    done = _homeport(homeport, "logs", task_id(arn))
    assert (done.returncode, done.stdout) == (0, "hello\n")
