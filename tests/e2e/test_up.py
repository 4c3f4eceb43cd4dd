"""`homeport up` with real daemons: what a beginner types, and what a script relies on."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.e2e.harness import eventually

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
#: Commands that the sample prints are found under this name.
SCRIPTS = Path(sys.executable).parent


class Up:
    """One `homeport up` below a directory of its own, which is also its home and working directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.data_dir = directory / ".homeport"
        self.log = directory / "err"
        unwanted = ("AWS_", "HOMEPORT_")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        self.environment["HOME"] = str(directory)
        self.environment["PATH"] = f"{SCRIPTS}:{os.environ['PATH']}"
        self._process: subprocess.Popen[str] | None = None

    def start(self, *options: str) -> str:
        """Start it and return the URL in the line that says it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["homeport", "up", *options],
                cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                text=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        match = re.fullmatch(r"homeport ready: (https?://\S+) \(data dir (.+)\)\n", line)
        assert match, line + self.log.read_text()
        assert Path(match[2]) == self.data_dir
        return match[1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it by a signal and return its exit status; nothing more may have come on standard output."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(number)
        rest, _ = process.communicate(timeout=40)
        assert number == signal.SIGKILL or rest == ""
        return process.returncode

    def refused(self, *options: str) -> tuple[int, str]:
        """Start it in vain; return the exit status and what it said."""
        done = subprocess.run(
            ["homeport", "up", *options],
            cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    def shell(self, command: str, *, code: int = 0) -> str:
        """Paste a command into a shell in its directory; return its standard output."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def json(self, command: str) -> Any:
        return json.loads(self.shell(f"{command} --json"))

    def child(self, module: str) -> int:
        """Return the pid of a daemon."""
        assert self._process is not None
        for pid in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
            if module in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                return int(pid)
        raise AssertionError(f"no child runs {module}")

    def containers(self, *options: str) -> list[str]:
        """Return the ids of the containers that its agent made."""
        identity = self.data_dir / "agent" / "identity.json"
        if not identity.exists():
            return []
        label = f"label=homeport.instance={json.loads(identity.read_text())['instance_id']}"
        done = subprocess.run(
            ["docker", "ps", "-q", "--no-trunc", "--filter", label, *options],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout.split()

    def clean_up(self) -> None:
        try:
            self.stop()
        finally:
            if left := self.containers("-a"):
                subprocess.run(["docker", "rm", "-f", *left], capture_output=True, timeout=60, check=True)


@contextmanager
def an_up(directory: Path) -> Iterator[Up]:
    up = Up(directory)
    try:
        yield up
    finally:
        up.clean_up()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with an_up(tmp_path / "one") as up:
        yield up


@pytest.fixture(scope="session")
def sample_image() -> str:
    subprocess.run([ROOT / "scripts" / "sample-image"], check=True, timeout=300)
    return "homeport/sample:1"


def get(url: str) -> str:
    with urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
        return text


# ---------------------------------------------------------------- the control plane alone


def test_a_script_can_start_it_and_point_tools_at_it(up: Up) -> None:
    options = ("--no-agent", "--listen", "127.0.0.1:0", "--account", "210987654321", "--region", "eu-home-1")
    url = up.start(*options)
    assert get(url + "/healthz") == "ok\n"
    assert get(url + "/readyz") == "ok\n"
    script = "import boto3; print(boto3.client('ecs').list_clusters()['clusterArns'])"
    said = up.shell(f'eval "$(homeport env --data-dir .homeport)" && {sys.executable} -c "{script}"')
    assert said == "['arn:aws:ecs:eu-home-1:210987654321:cluster/default']\n"
    up.child("controlplane.main")
    assert up.stop() == 0


def test_keys_and_settings_come_from_the_environment_and_a_file(up: Up) -> None:
    up.environment |= {
        "HOMEPORT_ACCESS_KEY_ID": "AKIAFROMTHEENVIRONMT",
        "HOMEPORT_SECRET_ACCESS_KEY": "0123456789abcdef0123456789abcdef",
        "HOMEPORT_ACCOUNT_ID": "111122223333",
    }
    (up.directory / "up.toml").write_text('region = "from-file"\naccount = "999999999999"\nno-agent = true\n')
    up.start("--config", "up.toml", "--listen", "127.0.0.1:0")
    found = up.json("homeport env")
    assert (found["AWS_ACCESS_KEY_ID"], found["AWS_REGION"]) == ("AKIAFROMTHEENVIRONMT", "from-file")
    assert up.json("homeport status")["account"] == "111122223333"
    command_line = Path(f"/proc/{up.child('controlplane.main')}/cmdline").read_text()
    assert "0123456789abcdef" not in command_line
    assert up.stop(signal.SIGINT) == 0


def test_tls_is_used_where_others_can_listen(up: Up) -> None:
    url = up.start("--no-agent", "--listen", "https://127.0.0.1:0")
    assert url.startswith("https://")
    assert up.json("homeport env")["AWS_CA_BUNDLE"] == str(up.data_dir / "controlplane" / "ca.pem")
    assert up.json("homeport nodes") == []
    up.shell("homeport login")
    script = "import boto3; boto3.client('ecs').list_clusters()"
    up.shell(f'AWS_PROFILE=homeport {sys.executable} -c "{script}"')
    ca_hash = up.json("homeport status")["caHash"]
    remote = f"homeport login --profile remote --endpoint {url} --access-key-id A --secret-access-key S"
    up.shell(f"{remote} --ca-hash {ca_hash}")
    assert (up.directory / ".aws" / "remote-ca.pem").read_text() == (up.data_dir / "controlplane/ca.pem").read_text()
    up.shell(f"{remote} --ca-hash sha256:{'0' * 64}", code=1)


def test_what_keeps_it_from_starting_is_one_clear_sentence(up: Up, tmp_path: Path) -> None:
    url = up.start("--no-agent", "--listen", "127.0.0.1:0")
    port = url.rsplit(":", 1)[1]
    alone = ("--no-agent", "--listen")
    code, said = up.refused(*alone, "127.0.0.1:0")
    assert code == 78
    assert "in use by another control plane" in said
    code, said = up.refused("--data-dir", "other", *alone, f"127.0.0.1:{port}")
    assert code == 78
    assert f"can't listen on 127.0.0.1:{port}: Address already in use" in said
    code, said = up.refused("--data-dir", "other", *alone, "nonsense")
    assert code == 78
    assert "expected HOST:PORT" in said
    code, said = up.refused("--data-dir", "other", "--docker-host", f"unix://{tmp_path}/none.sock")
    assert code == 1
    assert said.startswith(f"homeport: There is no Docker at unix://{tmp_path}/none.sock.\n")
    code, said = up.refused("--no-agent", "--access-key-id", "AKIAALONE")
    assert code == 78
    assert "belong together" in said


def test_killed_itself_it_leaves_no_daemon_behind(up: Up) -> None:
    url = up.start("--no-agent", "--listen", "127.0.0.1:0")
    daemon = up.child("controlplane.main")
    up.stop(signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{daemon}").exists())
    assert up.start("--no-agent", "--listen", "127.0.0.1:0") == url


def test_a_backup_brings_everything_back(up: Up, tmp_path: Path) -> None:
    up.start("--no-agent", "--listen", "127.0.0.1:0")
    up.shell('eval "$(homeport env)" && aws ecs create-cluster --cluster-name kept')
    up.shell("homeport backup running.tar")
    up.shell("homeport backup running.tar", code=1)
    before = up.json("homeport env")
    up.stop()
    up.shell("homeport backup stopped.tar")
    assert {path.stat().st_mode & 0o777 for path in up.directory.glob("*.tar")} == {0o600}
    with an_up(tmp_path / "two") as other:
        for name in ("running", "stopped"):
            other.shell(f"homeport restore {up.directory / name}.tar --data-dir {name}")
        other.shell(f"homeport restore {up.directory}/running.tar --data-dir stopped", code=78)
        (other.directory / "running").rename(other.data_dir)
        other.start("--no-agent", "--listen", "127.0.0.1:0")
        assert other.json("homeport env")["AWS_ACCESS_KEY_ID"] == before["AWS_ACCESS_KEY_ID"]
        assert other.json("homeport status")["clusters"] == 2


# ---------------------------------------------------------------- with an agent


def run_sleeper(up: Up, image: str) -> str:
    """Run a task that goes on; return its container's id."""
    (task,) = up.json(f"homeport run {image} --wait")
    runtime_id: str = task["containers"][0]["runtimeId"]
    return runtime_id


@pytest.fixture
def sleeper(sample_image: str) -> str:
    """Arguments of `homeport run` for a container that goes on."""
    return f"{sample_image} --memory 16"


def test_killed_daemons_come_back_and_containers_run_on(up: Up, sleeper: str) -> None:
    up.start("--listen", "127.0.0.1:0")
    container = run_sleeper(up, sleeper)
    for module, name in (("agent.main", "the agent"), ("controlplane.main", "the control plane")):
        killed = up.child(module)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda killed=killed, module=module: up.child(module) != killed)  # type: ignore[misc]
        assert f"homeport: {name} was killed by SIGKILL; starting it again in" in up.log.read_text()

    def healed() -> bool:
        (node,) = up.json("homeport nodes")
        (task,) = up.json("homeport ps")
        return node["connected"] and (task["lastStatus"], task["containers"][0]["restartCount"]) == ("RUNNING", 0)

    eventually(healed)
    assert up.containers() == [container]


def test_stopping_leaves_containers_and_the_next_start_takes_them_over(up: Up, sleeper: str) -> None:
    url = up.start("--listen", "127.0.0.1:0")
    container = run_sleeper(up, sleeper)
    (node,) = up.json("homeport nodes")
    assert up.stop() == 0
    assert "Containers go on running" in up.log.read_text()
    assert up.containers() == [container]
    # On another port: the agent follows, and stays the node it was.
    assert up.start("--listen", "127.0.0.2:0") != url
    (again,) = up.json("homeport nodes")
    assert again["id"] == node["id"]
    (task,) = up.json("homeport ps")
    assert (task["lastStatus"], task["containers"][0]["runtimeId"]) == ("RUNNING", container)
    up.shell(f"homeport stop {task['id'][:8]} --wait")
    assert up.containers() == []


def test_a_machine_that_is_deregistered_joins_anew_with_the_next_start(up: Up) -> None:
    up.start("--listen", "127.0.0.1:0")
    (node,) = up.json("homeport nodes")
    up.shell(
        f'eval "$(homeport env)" && aws ecs deregister-container-instance --container-instance {node["id"]} --force'
    )
    eventually(lambda: "this machine was deregistered" in up.log.read_text())
    assert up.json("homeport nodes") == []
    assert up.stop() == 0
    up.start("--listen", "127.0.0.1:0")
    (again,) = up.json("homeport nodes")
    assert again["connected"]
    assert again["id"] != node["id"]


def test_two_of_them_run_side_by_side(up: Up, sleeper: str, tmp_path: Path) -> None:
    up.start("--listen", "127.0.0.1:0")
    mine = run_sleeper(up, sleeper)
    with an_up(tmp_path / "two") as other:
        other.start("--listen", "127.0.0.1:0")
        assert other.json("homeport ps") == []
        theirs = run_sleeper(other, sleeper)
        assert (up.containers(), other.containers()) == ([mine], [theirs])
        (task,) = other.json("homeport ps")
        other.shell(f"homeport stop {task['id']} --wait")
    assert up.containers() == [mine]


def test_run_follows_a_container_to_its_end(up: Up, sample_image: str) -> None:
    up.start("--listen", "127.0.0.1:0")
    said = up.shell(f"homeport run {sample_image} -f -- sh -c 'echo one; sleep 0.5; echo two; exit 3'", code=1)
    assert said == "one\ntwo\n"
    (task,) = up.json("homeport ps -a")
    assert task["containers"][0]["exitCode"] == 3
    task_id = task["id"][:10]
    assert up.shell(f"homeport logs {task_id} --tail 1") == "two\n"
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \S+ one\n", up.shell(f"homeport logs {task_id} -t --tail 2").splitlines(True)[0]
    )
    assert "Exited with code 3" in up.shell(f"homeport story {task_id}")
    assert "it has: main" in refusal(up, f"homeport logs {task_id} nope")


def refusal(up: Up, command: str) -> str:
    return up.shell(f"{command} 2>&1", code=1)


def test_the_sample_runs_once_and_every_printed_command_works(up: Up, sample_image: str) -> None:
    up.start("--listen", "127.0.0.1:0", "--sample")
    eventually(lambda: "Stop with Ctrl-C" in up.log.read_text())
    text = up.log.read_text()
    url = re.search(r"A service of one web container runs: (http://127\.0\.0\.1:\d+/)", text)
    assert url, text
    assert "from Homeport, container" in get(url[1])
    commands = [line.partition("  # ")[0].strip() for line in text.splitlines() if line.startswith("    ")]
    assert [command.split()[0] for command in commands].count("kill") == 2
    for command in commands:
        up.shell(command)
    eventually(lambda: [node["connected"] for node in up.json("homeport nodes")] == [True])

    # `docker kill` was among the commands, and another task has taken the place of the one that it ended.
    killed = next(command.split()[2] for command in commands if command.startswith("docker kill "))
    assert "from Homeport, container" in eventually(lambda: get(url[1]))

    def web() -> list[dict[str, Any]]:
        return [task for task in up.json("homeport ps") if task["taskDefinition"] == "sample-web:1"]

    (replacement,) = eventually(lambda: [task for task in web() if task["lastStatus"] == "RUNNING"])
    assert not replacement["containers"][0]["runtimeId"].startswith(killed)
    up.stop()
    up.start("--listen", "127.0.0.1:0", "--sample")
    eventually(lambda: up.log.read_text().count("Stop with Ctrl-C") == 2)
    assert [task["id"] for task in web()] == [replacement["id"]]


def test_on_a_terminal_daemons_log_to_files(up: Up) -> None:
    terminal, end = os.openpty()
    try:
        process = subprocess.Popen(
            ["homeport", "up", "--no-agent", "--listen", "127.0.0.1:0"],
            cwd=up.directory, env=up.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=end,
            text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith("homeport ready: ")
        process.terminate()
        process.communicate(timeout=40)
        shown = os.read(terminal, 65536).decode()
    finally:
        os.close(terminal)
        os.close(end)
    lines = shown.splitlines()
    assert all(line.startswith("homeport: ") for line in lines), shown
    assert len(lines) == 2
    assert '"event": "ready"' in (up.data_dir / "controlplane.log").read_text()
