"""Back in time: a restored control plane takes back its hosts and the tasks it knows; what it doesn't know goes."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.harness import Installation, eventually

pytestmark = pytest.mark.e2e


def command(*arguments: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "homeport", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_restored_control_plane_takes_its_running_tasks_back(
    homeport: Installation, busybox: str, tmp_path: Path
) -> None:
    data_dir, file = str(homeport.directory / "cp"), str(tmp_path / "backup.tar")
    container = {"name": "app", "image": busybox, "command": ["sleep", "600"], "stopTimeout": 1}
    definition = homeport.register("backed-up", container)
    (known,) = homeport.run(definition)
    runtime_id = homeport.wait(known, "RUNNING")["containers"][0]["runtimeId"]
    command("backup", file, "--data-dir", data_dir)
    (later,) = homeport.run(definition)
    homeport.wait(later, "RUNNING")
    assert len(homeport.containers("status=running")) == 2

    homeport.control_plane.kill()
    homeport.listen = urlsplit(homeport.endpoint["local_url"]).netloc
    command("restore", file, "--data-dir", data_dir, "--force")
    homeport.start_control_plane()

    eventually(lambda: homeport.containers("status=running") == [runtime_id])
    assert homeport.task(known)["lastStatus"] == "RUNNING"
    assert homeport.ecs.describe_tasks(tasks=[later])["failures"][0]["reason"] == "MISSING"
    homeport.ecs.stop_task(task=known)
    assert homeport.wait(known, "STOPPED")["containers"][0]["runtimeId"] == runtime_id
