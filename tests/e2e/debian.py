"""A Debian image and a set of wheels, made without a registry, for tests that install Homeport somewhere else."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from tests.packages import install_debian_package, run

__all__ = [
    "CHECKOUT",
    "DEBIAN",
    "copy_source",
    "debian_image",
    "make_wheels",
    "own_wheel",
]

CHECKOUT: Final = Path(__file__).parents[2]
#: systemd, curl for the join command, and what the Dockerfile's stages install, so that little is left to download.
_PACKAGES: Final = "systemd,systemd-sysv,dbus,python3,python3-venv,ca-certificates,curl"
#: The tag carries what is in the image: other packages, another tag.
DEBIAN: Final = "homeport-test/debian:bookworm-1"
#: The Python of that release, which wheels must fit.
_PYTHON: Final = "3.11"


def debian_image() -> str:
    """Return the tag of the Debian image; made on first use, which takes about a minute, and kept in the Engine."""
    if run("docker", "image", "inspect", DEBIAN, check=False).returncode == 0:
        return DEBIAN
    install_debian_package("debootstrap", "debootstrap")
    with tempfile.TemporaryDirectory(prefix="homeport-debian-") as directory:
        root = Path(directory) / "root"
        run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", root)
        for rubbish in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
            shutil.rmtree(root / rubbish, ignore_errors=True)
        (root / "var/cache/apt/archives/partial").mkdir(parents=True)
        (root / "etc/hostname").unlink(missing_ok=True)
        archive = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
        with archive:
            subprocess.run(["docker", "import", "-", DEBIAN], stdin=archive.stdout, check=True, capture_output=True)
    return DEBIAN


def make_wheels(directory: Path) -> None:
    """Fill `directory` with wheels of Homeport's dependencies and of what builds it, for the Debian image's Python.

    They come from wherever pip finds them on this machine.
    """
    wanted = ["setuptools>=77", "wheel"]
    for line in requires("homeport") or ():
        requirement = Requirement(line)
        extras = ({"extra": extra} for extra in ("", "agent", "controlplane"))
        if requirement.marker is None or any(requirement.marker.evaluate(extra) for extra in extras):
            requirement.marker = None
            wanted.append(str(requirement))
    pip: Sequence[str] = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    # Published as a source archive only: made a wheel here, which fits every Python.
    run(*pip, "wheel", "--no-deps", "--wheel-dir", directory, "sdnotify")
    fitting = ("--only-binary=:all:", f"--python-version={_PYTHON}", "--implementation=cp")
    run(*pip, "download", *fitting, "--find-links", directory, "--dest", directory, *wanted)


def copy_source(directory: Path) -> None:
    """Copy what the package and the images are built from into `directory`, so that building leaves no trace here."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("homeport", "agent", "controlplane", "systemd", "scripts"):
        shutil.copytree(CHECKOUT / name, directory / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE", "Dockerfile", ".dockerignore"):
        shutil.copy(CHECKOUT / name, directory / name)


def own_wheel(directory: Path) -> Path:
    """Build this checkout's wheel into `directory` and return it."""
    with tempfile.TemporaryDirectory(prefix="homeport-source-") as source:
        copy_source(Path(source))
        run(sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", directory, source)
    (wheel,) = directory.glob("homeport-*.whl")
    return wheel
