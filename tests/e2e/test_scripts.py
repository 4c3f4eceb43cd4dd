"""The scripts behind `make`: the Engine that is there or is started, the sample image, up and down."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.e2e.debian import CHECKOUT
from tests.e2e.harness import eventually
from tests.packages import run

pytestmark = pytest.mark.e2e
ENSURE_DOCKER = CHECKOUT / "scripts/ensure-docker"
STOP_DOCKER = CHECKOUT / "scripts/stop-docker"


#: Without what a `make test` around this says to the makes below it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def call(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def not_ours(tmp_path: Path) -> dict[str, str]:
    """An environment in which make has not started the Engine, though it may well be the `make test` around this."""
    return {"HOMEPORT_DOCKER_RUN_DIR": str(tmp_path / "run")}


def test_an_engine_that_answers_is_left_as_it_is(not_ours: dict[str, str]) -> None:
    before = run("docker", "info", "--format={{.ID}} {{.Containers}}").stdout
    done = call(ENSURE_DOCKER, **not_ours)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert call(STOP_DOCKER, **not_ours).returncode == 0
    assert run("docker", "info", "--format={{.ID}} {{.Containers}}").stdout.split()[0] == before.split()[0]


def test_a_docker_host_that_is_silent_is_named_and_nothing_is_started() -> None:
    done = call(ENSURE_DOCKER, DOCKER_HOST="tcp://127.0.0.1:1")
    assert done.returncode == 1
    assert "no Docker Engine at tcp://127.0.0.1:1" in done.stderr
    assert "DOCKER_HOST names that Engine" in done.stderr


@pytest.fixture
def public_scripts() -> Iterator[Path]:
    """A copy of the scripts where any user can read them."""
    with tempfile.TemporaryDirectory(prefix="homeport-scripts-") as directory:
        Path(directory).chmod(0o755)
        shutil.copytree(CHECKOUT / "scripts", Path(directory) / "scripts")
        yield Path(directory) / "scripts"


def test_a_user_without_docker_is_told_what_to_do(public_scripts: Path) -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = call(*nobody, public_scripts / "ensure-docker", PYTHON="/usr/bin/python3", DOCKER_HOST="")
    assert done.returncode == 1
    assert "PermissionError" in done.stderr
    assert "sudo apt-get install docker.io" in done.stderr


def test_an_engine_is_started_once_however_many_ask_and_ends_with_down() -> None:
    """In namespaces of its own, where no Engine answers: both callers find the one that one of them has started."""
    script = f"""
        set -eu
        for directory in /run /var/lib/docker /var/log; do mount -t tmpfs tmpfs $directory; done
        {ENSURE_DOCKER} & first=$!
        {ENSURE_DOCKER} & second=$!
        wait $first; wait $second
        docker info --format 'containers: {{{{.Containers}}}}'
        echo "daemons: $(pgrep -c -x dockerd)"
        {ENSURE_DOCKER}
        {STOP_DOCKER}
        echo "daemons: $(pgrep -c -x dockerd || true)"
        {STOP_DOCKER}
    """
    isolated = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    done = call(*isolated, "bash", "-c", script, DOCKER_HOST="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["containers: 0", "daemons: 1", "daemons: 0"]
    assert done.stderr.count("starting dockerd") == 1


def test_the_sample_image_is_made_once_and_greets() -> None:
    assert call(CHECKOUT / "scripts/sample-image").returncode == 0
    made = run("docker", "image", "inspect", "--format={{.Id}}", "homeport/sample:1").stdout
    again = call(CHECKOUT / "scripts/sample-image")
    assert (again.returncode, again.stderr) == (0, "")
    assert run("docker", "image", "inspect", "--format={{.Id}}", "homeport/sample:1").stdout == made
    name = run("docker", "run", "--detach", "--env=GREETING=Good day", "homeport/sample:1").stdout.strip()
    try:
        address = run("docker", "inspect", "--format={{.NetworkSettings.IPAddress}}", name).stdout.strip()

        def page() -> str:
            with urlopen(f"http://{address}:8080/", timeout=5) as answer:
                text: str = answer.read().decode()
                return text

        assert f"Good day from Homeport, container {name[:12]}" in eventually(page)
        run("docker", "stop", "--time=20", name)
        assert run("docker", "inspect", "--format={{.State.ExitCode}}", name).stdout.strip() == "0"
    finally:
        run("docker", "rm", "--force", name)


def test_make_up_runs_the_sample_and_make_down_leaves_nothing_running(tmp_path: Path, not_ours: dict[str, str]) -> None:
    directory = f"DATA_DIR={tmp_path / 'data'}"
    log = tmp_path / "log"
    with log.open("wb") as out:
        # No fixed ports: others may have them.
        up = subprocess.Popen(
            ["make", "--directory", CHECKOUT, "up", directory, "ARGS=--listen 127.0.0.1:0"],
            env={**ENVIRONMENT, **not_ours}, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:

        def said() -> str:
            assert up.poll() is None, log.read_text()
            text = log.read_text()
            return text if "A service of one web container runs: " in text else ""

        url = eventually(said, within_s=120).partition("A service of one web container runs: ")[2].split()[0]
        with urlopen(url, timeout=10) as page:
            greeting = page.read().decode()
        assert "Hello from Homeport, container " in greeting
    finally:
        down = call("make", "--directory", CHECKOUT, "down", directory, **not_ours)
    assert down.returncode == 0, down.stderr
    up.wait(30)
    assert "removing 1 container(s)" in down.stderr
    # By the container that served, not by the port: a stopped container of somebody else's may name the same one.
    container = greeting.partition(", container ")[2][:12]
    assert run("docker", "ps", "--all", "--quiet", f"--filter=id={container}").stdout == ""
