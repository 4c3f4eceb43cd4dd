"""The wheels that a host needs to run the agent, made from what is installed here.

A host that joins may reach nothing but the control plane, so the control plane hands out its own agent and that agent's
libraries. An installed distribution has all that its wheel had (its files are listed in RECORD, its tags in WHEEL), so
the wheel can be put together again; a checkout's own wheel is made from its packages. Libraries with machine code
fit hosts of the same architecture and Python; for others the installer asks a package index.

Wheels are reproducible: the same installation gives the same bytes, so that their digests may be printed, sent on and
checked later.
"""

import base64
import hashlib
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import homeport

__all__ = ["Wheel", "agent_distributions", "build_wheels", "data_file"]

_OWN: Final = "homeport"
_EXTRA: Final = "agent"
_PACKAGES: Final = ("homeport", "agent", "controlplane")
#: What the distribution installs below the prefix, and where it lies in a checkout.
_DATA_FILES: Final = {
    "share/homeport/install-agent": "scripts/install-agent",
    "share/homeport/systemd/homeport-agent.service": "systemd/homeport-agent.service",
    "share/homeport/systemd/homeport-controlplane.service": "systemd/homeport-controlplane.service",
}
_CHECKOUT: Final = Path(homeport.__file__).parents[1]
#: Zip files can't say less; a fixed date makes them reproducible.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
#: What the installing pip wrote, and what it will write anew.
_WRITTEN_BY_PIP: Final = frozenset({"INSTALLER", "RECORD", "REQUESTED", "direct_url.json"})


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on disk. `sha256`: hexadecimal."""

    name: str
    path: Path
    sha256: str


def data_file(name: str) -> Path:
    """Return where a data file of this distribution, e.g. "share/homeport/install-agent", lies: prefix or checkout.

    Raises FileNotFoundError.
    """
    for path in (Path(sys.prefix) / name, _CHECKOUT / _DATA_FILES[name]):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name} is missing from this installation: install Homeport anew")


def agent_distributions() -> list[Distribution]:
    """Return this distribution and all that the agent needs of those installed, by name; what is absent is left out."""
    found: dict[str, Distribution] = {}
    wanted = [(_OWN, _EXTRA)]
    while wanted:
        name, extra = wanted.pop()
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            continue
        found[canonicalize_name(name)] = dist
        for requirement in map(Requirement, dist.requires or ()):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            if canonicalize_name(requirement.name) not in found:
                wanted += [(requirement.name, extra) for extra in ("", *requirement.extras)]
    return [found[name] for name in sorted(found)]


def build_wheels(directory: Path) -> list[Wheel]:
    """Make the wheels of `agent_distributions` in `directory`; takes seconds. Those made before are used again.

    Blocks; a thread's work. Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    wheels = []
    for dist in agent_distributions():
        path = directory / _wheel_name(dist)
        # Nobody edits an installed library; but Homeport itself may be a checkout, which changes under one version.
        if canonicalize_name(dist.name) == _OWN or not path.exists():
            _write_wheel(path, dist)
        wheels.append(Wheel(path.name, path, hashlib.sha256(path.read_bytes()).hexdigest()))
    return wheels


def _write_wheel(path: Path, dist: Distribution) -> None:
    info = f"{_stem(dist)}.dist-info"
    contents = dict(_checkout_contents(dist, info) if _is_checkout(dist) else _installed_contents(dist, info))
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as temporary:
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in sorted(contents.items()):
                    _add(archive, name, content)
                _add(archive, f"{info}/RECORD", _record(contents.items(), info))
            Path(temporary.name).replace(path)
        except BaseException:
            Path(temporary.name).unlink(missing_ok=True)
            raise


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def _record(contents: Iterable[tuple[str, bytes]], info: str) -> bytes:
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in sorted(contents)]
    return "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _is_checkout(dist: Distribution) -> bool:
    """Tell whether this is our own distribution, installed editable: then its files aren't listed as installed."""
    return canonicalize_name(dist.name) == _OWN and not (Path(sys.prefix) / next(iter(_DATA_FILES))).is_file()


def _checkout_contents(dist: Distribution, info: str) -> Iterator[tuple[str, bytes]]:
    for package in _PACKAGES:
        for path in sorted((_CHECKOUT / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(_CHECKOUT).as_posix(), path.read_bytes()
    for name, source in _DATA_FILES.items():
        yield f"{_stem(dist)}.data/data/{name}", (_CHECKOUT / source).read_bytes()
    yield f"{info}/licenses/LICENSE", (_CHECKOUT / "LICENSE").read_bytes()
    metadata = dist.read_text("METADATA") or dist.read_text("PKG-INFO") or ""
    yield f"{info}/METADATA", metadata.encode()
    yield f"{info}/entry_points.txt", (dist.read_text("entry_points.txt") or "").encode()
    yield f"{info}/WHEEL", b"Wheel-Version: 1.0\nGenerator: homeport\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def _installed_contents(dist: Distribution, info: str) -> Iterator[tuple[str, bytes]]:
    for file in dist.files or ():
        name = PurePosixPath(file)
        if name.suffix == ".pyc" or (name.parent.suffix == ".dist-info" and name.name in _WRITTEN_BY_PIP):
            continue
        content = Path(str(file.locate())).read_bytes()
        if name.parts[0] != "..":
            # Its metadata may lie in a directory whose name is written otherwise than pip expects of a wheel.
            yield (
                (f"{info}/{name.relative_to(name.parts[0])}" if name.parts[0].endswith(".dist-info") else str(name)),
                content,
            )
        elif "share" in name.parts:
            yield f"{_stem(dist)}.data/data/{'/'.join(name.parts[name.parts.index('share') :])}", content
        # What else lies outside of the library is bin/: console scripts, which pip makes from entry_points.txt.


def _stem(dist: Distribution) -> str:
    return f"{re.sub(r'[-_.]+', '_', dist.name).lower()}-{dist.version}"


def _wheel_name(dist: Distribution) -> str:
    """Return the file name with the tags that WHEEL tells, compressed as in `cp311-cp311-linux_x86_64.linux_i686`."""
    tags = [line[4:].strip().split("-") for line in (dist.read_text("WHEEL") or "").splitlines() if line[:4] == "Tag:"]
    columns = zip(*(tags or [["py3", "none", "any"]]), strict=True)
    return "-".join([_stem(dist), *(".".join(sorted(set(column))) for column in columns)]) + ".whl"
