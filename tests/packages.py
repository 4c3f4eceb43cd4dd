"""Debian packages that tests need, installed when they are missing."""

import shutil
import subprocess
from pathlib import Path

__all__ = ["install_debian_package", "run"]


def run(*command: str | Path, check: bool = True, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is in the message if it fails."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0 or not check, f"{command}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def install_debian_package(command: str, package: str) -> None:
    """Install `package` unless `command` is there. Root on Debian."""
    if shutil.which(command) is None:
        run("apt-get", "-qq", "update")
        run("apt-get", "-qq", "install", "-y", "--no-install-recommends", package)
