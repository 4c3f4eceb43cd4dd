"""A task's own control group: its cpu and memory as hard limits over all its containers together.

The group is made before the first container and given to Docker as its containers' parent; it is removed after the
last. Where Docker uses the cgroupfs driver the group is a plain directory, `/homeport/TASK`, in the v1 memory and cpu
hierarchies or in the v2 tree. Under the systemd driver it is a slice, `homeport-TASK.slice`: systemd owns the tree
there and would undo limits written behind its back, so it is given a unit file in /run.

Where a group can't be made (an Engine on another machine, no permission) the agent works without: each container is
held to the task's figures, but not their sum (`agent.engine.plan`), and `reason` says why.
"""

import asyncio
import errno
import subprocess
from pathlib import Path
from typing import Final

import msgspec
import structlog

from agent.engine.api import EngineInfo
from agent.engine.plan import CPU_PERIOD_US, MIN_CPU_SHARES, cpu_quota_us
from homeport.ids import TaskId
from homeport.spec import TaskSpec

__all__ = ["CgroupPlan", "TaskCgroups", "needs_cgroup", "plan_cgroup", "slice_unit"]

_log = structlog.get_logger(__name__)

_MIB: Final = 1024 * 1024
_PARENT: Final = "homeport"
_SYSTEMCTL_LIMIT_S: Final = 30
#: The kernel's ranges of shares (v1) and weights (v2), and so the line between them.
_SHARES_RANGE: Final = (2, 262_144)
_WEIGHT_RANGE: Final = (1, 10_000)


class CgroupPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Directories to make, parents first, and what to write into which file: (path, value, whether it must succeed)."""

    directories: tuple[Path, ...]
    writes: tuple[tuple[Path, str, bool], ...]


def needs_cgroup(task: TaskSpec) -> bool:
    """Whether a task has limits of its own."""
    return task.cpu_units is not None or task.memory_mib is not None


def _shares(task: TaskSpec) -> int:
    """What a task weighs against others: its cpu, or what its containers add up to (ECS's rule)."""
    if task.cpu_units is not None:
        return max(MIN_CPU_SHARES, task.cpu_units)
    return sum(max(MIN_CPU_SHARES, container.cpu_units) for container in task.containers)


def _weight(shares: int) -> int:
    """Return the v2 weight for v1 shares, by the same line as runc and systemd draw."""
    low, high = _SHARES_RANGE
    least, most = _WEIGHT_RANGE
    return least + (min(max(shares, low), high) - low) * (most - least) // (high - low)


def plan_cgroup(root: Path, version: str, task_id: TaskId, task: TaskSpec) -> CgroupPlan:
    """Return how to make a task's group under the cgroupfs driver. `root`: where cgroups are mounted."""
    return _plan_v2(root, task_id, task) if version == "2" else _plan_v1(root, task_id, task)


def _plan_v1(root: Path, task_id: TaskId, task: TaskSpec) -> CgroupPlan:
    memory, cpu = (root / controller / _PARENT / task_id for controller in ("memory", "cpu"))
    writes = [(cpu / "cpu.shares", str(_shares(task)), True)]
    if task.cpu_units is not None:
        writes.append((cpu / "cpu.cfs_period_us", str(CPU_PERIOD_US), True))
        writes.append((cpu / "cpu.cfs_quota_us", str(cpu_quota_us(task.cpu_units)), True))
    if task.memory_mib is not None:
        limit = str(task.memory_mib * _MIB)
        # Kernels before 5.11 count children only where told to, and refuse the word where it is the rule already.
        writes.append((memory / "memory.use_hierarchy", "1", False))
        writes.append((memory / "memory.limit_in_bytes", limit, True))
        # No swap on top; the file is missing where the kernel doesn't account for swap.
        writes.append((memory / "memory.memsw.limit_in_bytes", limit, False))
    return CgroupPlan(directories=(memory.parent, memory, cpu.parent, cpu), writes=tuple(writes))


def _plan_v2(root: Path, task_id: TaskId, task: TaskSpec) -> CgroupPlan:
    parent = root / _PARENT
    group = parent / task_id
    # A group has only the controllers that each one above it passes on.
    writes = [(level / "cgroup.subtree_control", "+cpu +memory", True) for level in (root, parent)]
    writes.append((group / "cpu.weight", str(_weight(_shares(task))), True))
    if task.cpu_units is not None:
        writes.append((group / "cpu.max", f"{cpu_quota_us(task.cpu_units)} {CPU_PERIOD_US}", True))
    if task.memory_mib is not None:
        writes.append((group / "memory.max", str(task.memory_mib * _MIB), True))
        writes.append((group / "memory.swap.max", "0", False))
    return CgroupPlan(directories=(parent, group), writes=tuple(writes))


def slice_unit(task_id: TaskId, task: TaskSpec) -> str:
    """Return the unit file of a task's slice."""
    lines = ["[Unit]", f"Description=Homeport task {task_id}", "", "[Slice]", f"CPUWeight={_weight(_shares(task))}"]
    if task.cpu_units is not None:
        # In percent of one core, two decimals.
        lines += [
            f"CPUQuota={cpu_quota_us(task.cpu_units) / CPU_PERIOD_US:.2%}",
            f"CPUQuotaPeriodSec={CPU_PERIOD_US}us",
        ]
    if task.memory_mib is not None:
        lines += [f"MemoryMax={task.memory_mib}M", "MemorySwapMax=0"]
    return "\n".join([*lines, ""])


class TaskCgroups:
    """Makes and removes tasks' groups for one Engine.

    Its file calls take microseconds; systemd's run beside the loop.
    """

    def __init__(
        self,
        info: EngineInfo,
        *,
        docker_host: str,
        root: Path = Path("/sys/fs/cgroup"),
        unit_dir: Path = Path("/run/systemd/system"),
    ) -> None:
        self._version = info.cgroup_version
        self._systemd = info.cgroup_driver == "systemd"
        self._root = root
        self._unit_dir = unit_dir
        self._unsupported = _why_not(info, docker_host, root)
        #: Why tasks' limits don't hold over all their containers together (or didn't the last time); "": they do.
        self.reason = self._unsupported

    def parent(self, task_id: TaskId) -> str:
        """Return the group's name as Docker's CgroupParent takes it."""
        return f"{_PARENT}-{task_id}.slice" if self._systemd else f"/{_PARENT}/{task_id}"

    async def ensure(self, task_id: TaskId, task: TaskSpec) -> str | None:
        """Make a task's group, or see that it is as it should be; return its CgroupParent.

        None if the task has no limits of its own, or if groups can't be made here (see `reason`). On cancel the group
        may be there.
        """
        if not needs_cgroup(task) or self._unsupported:
            return None
        try:
            if self._systemd:
                await self._start_slice(task_id, task)
            else:
                _make(plan_cgroup(self._root, self._version, task_id, task))
        except (OSError, subprocess.SubprocessError, TimeoutError) as error:
            self.reason = f"a task's control group can't be made: {error}"
            _log.warning("Task limits hold for each container alone", reason=self.reason)
            return None
        self.reason = ""
        return self.parent(task_id)

    async def remove(self, task_id: TaskId) -> None:
        """Remove a task's group; quietly, if there is none. Call it when the task's containers are gone."""
        if self._systemd:
            await self._stop_slice(task_id)
            return
        # Docker makes the parent in every v1 hierarchy, ours are but two of them.
        for directory in self._root.glob(f"*/{_PARENT}/{task_id}") if self._version == "1" else self._v2(task_id):
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise
                _log.warning("A task's control group is still in use", path=str(directory))

    def _v2(self, task_id: TaskId) -> tuple[Path, ...]:
        return (self._root / _PARENT / task_id,)

    async def _start_slice(self, task_id: TaskId, task: TaskSpec) -> None:
        name = self.parent(task_id)
        path = self._unit_dir / name
        path.write_text(slice_unit(task_id, task), encoding="utf-8")
        await _systemctl("start", name)

    async def _stop_slice(self, task_id: TaskId) -> None:
        path = self._unit_dir / self.parent(task_id)
        if not path.exists():
            return
        await _systemctl("stop", path.name)
        path.unlink(missing_ok=True)


def _why_not(info: EngineInfo, docker_host: str, root: Path) -> str:
    if not docker_host.startswith("unix://"):
        return f"the Docker Engine is reached over {docker_host.partition('://')[0]}, its control groups are not ours"
    if info.cgroup_driver not in ("cgroupfs", "systemd"):
        return f"Docker's cgroup driver is {info.cgroup_driver!r}"
    probe = root / ("cgroup.controllers" if info.cgroup_version == "2" else "memory")
    if not probe.exists():
        return f"no cgroup v{info.cgroup_version} tree at {root}"
    return ""


def _make(plan: CgroupPlan) -> None:
    for directory in plan.directories:
        directory.mkdir(exist_ok=True)
    for path, value, required in plan.writes:
        try:
            path.write_text(value, encoding="ascii")
        except OSError:
            if required:
                raise


async def _systemctl(verb: str, unit: str) -> None:
    """Run systemctl. Raises OSError if there is none, CalledProcessError, or TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        "systemctl", verb, unit, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_SYSTEMCTL_LIMIT_S):
            _, errors = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, f"systemctl {verb} {unit}", stderr=errors)
