"""What containers use, read from the kernel: control groups v1 and v2, and /proc.

Not from `docker stats`: that takes the Engine a second per container and stops when the Engine does. A container's
groups are found by its process, so where Docker puts them doesn't matter. A figure whose file can't be read is None.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["ContainerUsage", "read_usage"]

_US: Final = 1e6
_NS: Final = 1e9
#: v1 says "no limit" with the greatest multiple of a page that fits; nothing real is near.
_UNLIMITED: Final = 1 << 60
#: A v1 hierarchy may be mounted under its own name or beside its twin.
_V1_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "memory": ("memory",),
    "cpu": ("cpu", "cpu,cpuacct"),
    "cpuacct": ("cpuacct", "cpu,cpuacct"),
    "blkio": ("blkio",),
}


class ContainerUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What one container has used since it started. Memory limit None: none, or not known."""

    cpu_seconds: float | None = None
    cpu_periods: int | None = None
    cpu_throttled_periods: int | None = None
    cpu_throttled_seconds: float | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    #: Memory less the page cache that can be dropped: what decides about an OOM kill.
    memory_working_set_bytes: int | None = None
    oom_kills: int | None = None
    block_read_bytes: int | None = None
    block_written_bytes: int | None = None
    #: None also for a container in the host's network: the figures there are the host's.
    network_received_bytes: int | None = None
    network_transmitted_bytes: int | None = None


def read_usage(pid: int, *, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> ContainerUsage:
    """Read the usage of the container whose first process is `pid`; all None once that process is gone."""
    groups = _groups(proc / str(pid))
    received, transmitted = _network(proc, pid)
    if "memory" in groups:
        usage = _read_v1(root, groups)
    elif "" in groups:
        usage = _read_v2(root / groups[""].lstrip("/"))
    else:
        usage = ContainerUsage()
    return msgspec.structs.replace(usage, network_received_bytes=received, network_transmitted_bytes=transmitted)


def _groups(process: Path) -> dict[str, str]:
    """Return controller -> path of a process's control groups; "" is v2's."""
    groups = {}
    for line in _lines(process / "cgroup"):
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _read_v1(root: Path, groups: Mapping[str, str]) -> ContainerUsage:
    def directory(controller: str) -> Path:
        path = groups.get(controller, "").lstrip("/")
        candidates = [root / name / path for name in _V1_NAMES[controller]]
        return next((candidate for candidate in candidates if candidate.is_dir()), candidates[0])

    memory, blkio = directory("memory"), directory("blkio")
    cpu = _table(_lines(directory("cpu") / "cpu.stat"))
    used = _number(memory / "memory.usage_in_bytes")
    limit = _number(memory / "memory.limit_in_bytes")
    cpu_ns = _number(directory("cpuacct") / "cpuacct.usage")
    io = _block_v1(_lines(blkio / "blkio.throttle.io_service_bytes_recursive"))
    return ContainerUsage(
        cpu_seconds=_over(cpu_ns, _NS),
        cpu_periods=cpu.get("nr_periods"),
        cpu_throttled_periods=cpu.get("nr_throttled"),
        cpu_throttled_seconds=_over(cpu.get("throttled_time"), _NS),
        memory_bytes=used,
        memory_limit_bytes=limit if limit is not None and limit < _UNLIMITED else None,
        memory_working_set_bytes=_working_set(
            used, _table(_lines(memory / "memory.stat")).get("total_inactive_file", 0)
        ),
        oom_kills=_table(_lines(memory / "memory.oom_control")).get("oom_kill"),
        block_read_bytes=io[0],
        block_written_bytes=io[1],
    )


def _read_v2(group: Path) -> ContainerUsage:
    cpu = _table(_lines(group / "cpu.stat"))
    used = _number(group / "memory.current")
    io = _block_v2(_lines(group / "io.stat"))
    return ContainerUsage(
        cpu_seconds=_over(cpu.get("usage_usec"), _US),
        cpu_periods=cpu.get("nr_periods"),
        cpu_throttled_periods=cpu.get("nr_throttled"),
        cpu_throttled_seconds=_over(cpu.get("throttled_usec"), _US),
        memory_bytes=used,
        memory_limit_bytes=_number(group / "memory.max"),
        memory_working_set_bytes=_working_set(used, _table(_lines(group / "memory.stat")).get("inactive_file", 0)),
        oom_kills=_table(_lines(group / "memory.events")).get("oom_kill"),
        block_read_bytes=io[0],
        block_written_bytes=io[1],
    )


def _network(proc: Path, pid: int) -> tuple[int | None, int | None]:
    """Sum what a network namespace received and sent, loopback aside; None for the agent's own: the host's."""
    try:
        if os.readlink(proc / str(pid) / "ns/net") == os.readlink(proc / "self/ns/net"):
            return None, None
    except OSError:
        return None, None
    lines = _lines(proc / str(pid) / "net/dev")
    received = transmitted = 0
    for line in lines[2:]:
        name, _, figures = line.partition(":")
        if name.strip() != "lo":
            columns = figures.split()
            received += int(columns[0])
            transmitted += int(columns[8])
    return (received, transmitted) if lines else (None, None)


def _block_v1(lines: Iterable[str]) -> tuple[int | None, int | None]:
    """Sum `MAJOR:MINOR Read N` lines over devices."""
    read = written = None
    for line in lines:
        match line.split():
            case [_, "Read", amount]:
                read = (read or 0) + int(amount)
            case [_, "Write", amount]:
                written = (written or 0) + int(amount)
    return read, written


def _block_v2(lines: Iterable[str]) -> tuple[int | None, int | None]:
    """Sum `MAJOR:MINOR rbytes=N wbytes=N ...` lines over devices."""
    read = written = None
    for line in lines:
        figures = dict(part.split("=", 1) for part in line.split()[1:] if "=" in part)
        if "rbytes" in figures:
            read = (read or 0) + int(figures["rbytes"])
            written = (written or 0) + int(figures.get("wbytes", 0))
    return read, written


def _working_set(used: int | None, droppable: int) -> int | None:
    return None if used is None else max(0, used - droppable)


def _over(amount: int | None, unit: float) -> float | None:
    return None if amount is None else amount / unit


def _number(path: Path) -> int | None:
    """Read a file with one number; None if it can't be read or says "max"."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _table(lines: Iterable[str]) -> dict[str, int]:
    """Read lines of `name number`."""
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _lines(path: Path) -> list[str]:
    """Read a file; nothing if it isn't there (any more)."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
