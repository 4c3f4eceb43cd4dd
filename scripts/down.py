"""Stop what `make up` started, but for dockerd: down.py DATA_DIR.

First `homeport up` with its daemons, then the containers that this data directory's agent made: they would run on
otherwise, as they do when an agent is stopped. The data directory stays, and so do volumes. The standard library
alone: works without the venv.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STOP_TIMEOUT_S = 60.0


def _say(text: str) -> None:
    sys.stderr.write(f"== {text}\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return document


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def _supervisor(data_dir: Path) -> int | None:
    """Return the pid of the `homeport up` that runs this data directory's control plane, if one does."""
    pid = _read(data_dir / "controlplane" / "endpoint.json").get("pid")
    if pid is None or "controlplane.main" not in _command_line(pid) or str(data_dir) not in _command_line(pid):
        return None
    stat = Path(f"/proc/{pid}/stat").read_text()
    parent = int(stat.rpartition(")")[2].split()[1])
    return parent if "up" in _command_line(parent) else None


def stop_up(data_dir: Path) -> None:
    """Stop `homeport up` as Ctrl-C does, and wait for its end."""
    pid = _supervisor(data_dir)
    if pid is None:
        return
    _say(f"stopping homeport up (pid {pid})")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while _command_line(pid):
        if time.monotonic() > deadline:
            sys.exit(f"error: homeport up (pid {pid}) does not stop")
        time.sleep(0.1)


def remove_containers(data_dir: Path) -> None:
    """Stop and remove every container that carries this data directory's instance id, and no other."""
    instance = _read(data_dir / "agent" / "identity.json").get("instance_id")
    if instance is None:
        return
    listing = ["docker", "ps", "--all", "--quiet", "--no-trunc", f"--filter=label=homeport.instance={instance}"]
    try:
        containers = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return  # no Engine: nothing runs
    if containers:
        _say(f"removing {len(containers)} container(s)")
        subprocess.run(["docker", "stop", *containers], check=False, stdout=subprocess.DEVNULL)
        subprocess.run(["docker", "rm", "--force", *containers], check=False, stdout=subprocess.DEVNULL)


def main() -> None:
    """Stop the daemons, then their containers."""
    data_dir = Path(sys.argv[1]).absolute()
    stop_up(data_dir)
    remove_containers(data_dir)


if __name__ == "__main__":
    main()
