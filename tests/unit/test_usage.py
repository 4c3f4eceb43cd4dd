"""What a container uses, from the kernel's files as they look in both versions of control groups."""

import os
from pathlib import Path

from agent.usage import ContainerUsage, read_usage

V1 = {
    "memory/docker/c/memory.usage_in_bytes": "1000",
    "memory/docker/c/memory.limit_in_bytes": "4096",
    "memory/docker/c/memory.stat": "cache 5\ntotal_inactive_file 300\n",
    "memory/docker/c/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "cpu,cpuacct/docker/c/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 1500000000\n",
    "cpu,cpuacct/docker/c/cpuacct.usage": "2500000000",
    "blkio/docker/c/blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\n8:16 Read 5\nTotal 35\n",
}
V2 = {
    "system.slice/docker-c.scope/memory.current": "1000",
    "system.slice/docker-c.scope/memory.max": "max",
    "system.slice/docker-c.scope/memory.stat": "file 700\ninactive_file 300\n",
    "system.slice/docker-c.scope/memory.events": "low 0\noom 1\noom_kill 2\n",
    "system.slice/docker-c.scope/cpu.stat": (
        "usage_usec 2500000\nuser_usec 1\nnr_periods 10\nnr_throttled 4\nthrottled_usec 1500000\n"
    ),
    "system.slice/docker-c.scope/io.stat": "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=5 wbytes=0 rios=1\n",
}
NET = "Inter-| Receive\n face |bytes\n  lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\neth0: 70 1 0 0 0 0 0 0 30 1 0 0 0 0 0 0\n"


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def process(root: Path, groups: str, *, network: str = "net:[2]") -> Path:
    proc = lay_out(root, {"7/cgroup": groups, "7/net/dev": NET})
    for pid, namespace in (("7", network), ("self", "net:[1]")):
        (proc / pid / "ns").mkdir(parents=True)
        os.symlink(namespace, proc / pid / "ns/net")
    return proc


def test_v1(tmp_path: Path) -> None:
    groups = "4:memory:/docker/c\n3:cpu,cpuacct:/docker/c\n2:blkio:/docker/c\n0::/\n"
    usage = read_usage(7, proc=process(tmp_path / "proc", groups), root=lay_out(tmp_path / "cg", V1))
    assert usage == ContainerUsage(
        cpu_seconds=2.5,
        cpu_periods=10,
        cpu_throttled_periods=4,
        cpu_throttled_seconds=1.5,
        memory_bytes=1000,
        memory_limit_bytes=4096,
        memory_working_set_bytes=700,
        oom_kills=2,
        block_read_bytes=15,
        block_written_bytes=20,
        network_received_bytes=70,
        network_transmitted_bytes=30,
    )


def test_v2(tmp_path: Path) -> None:
    groups = "0::/system.slice/docker-c.scope\n"
    usage = read_usage(7, proc=process(tmp_path / "proc", groups), root=lay_out(tmp_path / "cg", V2))
    assert usage == ContainerUsage(
        cpu_seconds=2.5,
        cpu_periods=10,
        cpu_throttled_periods=4,
        cpu_throttled_seconds=1.5,
        memory_bytes=1000,
        memory_limit_bytes=None,
        memory_working_set_bytes=700,
        oom_kills=2,
        block_read_bytes=15,
        block_written_bytes=20,
        network_received_bytes=70,
        network_transmitted_bytes=30,
    )


def test_v1s_word_for_no_limit_is_none(tmp_path: Path) -> None:
    files = V1 | {"memory/docker/c/memory.limit_in_bytes": "9223372036854771712"}
    proc = process(tmp_path / "proc", "4:memory:/docker/c\n")
    assert read_usage(7, proc=proc, root=lay_out(tmp_path / "cg", files)).memory_limit_bytes is None


def test_the_hosts_network_is_not_the_containers(tmp_path: Path) -> None:
    proc = process(tmp_path / "proc", "0::/x\n", network="net:[1]")
    assert read_usage(7, proc=proc, root=tmp_path).network_received_bytes is None


def test_a_process_that_is_gone_has_no_figures(tmp_path: Path) -> None:
    assert read_usage(7, proc=tmp_path, root=tmp_path) == ContainerUsage()
