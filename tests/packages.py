"""Debian packages that tests need, installed when they are missing."""

import fcntl
import shutil
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["aws_cli_2", "install", "install_debian_package", "run"]

#: Where Debian's package puts it.
_AWS: Final = Path("/usr/bin/aws")
#: As scripts/lib.sh has it: another apt may be at work.
_PATIENT: Final = ("-o", "DPkg::Lock::Timeout=300")


def run(*command: str | Path, check: bool = True, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is in the message if it fails."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0 or not check, f"{command}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def install(package: str) -> None:
    """Install a package; whoever else runs tests or upgrades the machine just now is waited for. Root on Debian."""
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run("apt-get", "-qq", "update")
        run("apt-get", *_PATIENT, "-qq", "install", "-y", "--no-install-recommends", package)


def install_debian_package(command: str, package: str) -> None:
    """Install `package` unless `command` is there. Root on Debian."""
    if shutil.which(command) is None:
        install(package)


def aws_cli_2() -> Path:
    """Return version 2 of the AWS CLI, installed if need be: `aws logs tail` isn't in version 1, which PyPI has."""
    if not _AWS.exists():
        install("awscli")
    assert "aws-cli/2" in run(_AWS, "--version").stdout
    return _AWS
