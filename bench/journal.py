"""The journal: durable commits per second as committers grow, and what loading a large state costs in time and memory.

    python -m bench.journal [--directory DIR] [--seconds S] [--tasks N] [--hosts N]

prints JSON. Ratios are taken within the run: group commit over one committer at a time, and that one over the floor, a
bare write and fsync of as many bytes to a file in the same directory.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

import psutil

from bench.common import Json, machine
from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.state.state import State, load_state
from controlplane.store.documents import encode
from controlplane.store.sqlite import SqliteJournal
from homeport.ids import InstanceId, TaskId, new_hex_id, new_uuid
from homeport.protocol import ContainerReport, HostFacts, NetworkBinding
from homeport.spec import ContainerSpec, HealthCheck, LogConfiguration, PortMapping, Resources, TaskSpec
from homeport.status import ContainerStatus, HealthStatus, TaskStatus

__all__ = ["example_instance", "example_task", "journal"]

COMMITTERS: Final = (1, 50, 500)
_SEED: Final = 1


def journal(directory: Path, *, seconds: float = 3.0, tasks: int = 100_000, hosts: int = 5000) -> Json:
    """Measure in a fresh directory below `directory`."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        here = Path(name)
        floor = _fsyncs_per_second(here / "floor", seconds)
        commits = {str(number): asyncio.run(_commits(here / f"{number}.db", number, seconds)) for number in COMMITTERS}
        alone = commits[str(COMMITTERS[0])]["commits_per_second"]
        asyncio.run(_fill(here / "large.db", tasks, hosts))
        command = [sys.executable, "-m", "bench.journal", "--load", str(here / "large.db")]
        loaded = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "machine": machine(),
        "floor_fsyncs_per_second": floor,
        "committers": commits,
        "ratio_to_one_committer": {
            number: round(result["commits_per_second"] / alone, 1) for number, result in commits.items()
        },
        "ratio_of_one_committer_to_floor": round(alone / floor, 2),
        "load": {"tasks": tasks, "hosts": hosts, **loaded},
    }


# ---------------------------------------------------------------- commits


def _fsyncs_per_second(path: Path, seconds: float) -> float:
    """Append and fsync a task's worth of bytes over and over."""
    body = encode(example_task(random.Random(_SEED), 0, InstanceId("0" * 32)))
    with path.open("wb", buffering=0) as file:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            file.write(body)
            os.fsync(file.fileno())
            count += 1
        return round(count / (time.perf_counter() - began), 1)


async def _commits(path: Path, committers: int, seconds: float) -> Json:
    """Let `committers` put a task each, wait until it is durable, and so on."""
    source = random.Random(_SEED)
    latencies: list[float] = []
    batches: Counter[int] = Counter()
    async with SqliteJournal.open(path, on_commit=lambda _, size: batches.update({size: 1})) as store:
        state = await load_state(store)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(store.run())
            began = time.perf_counter()

            async def commit_on_and_on() -> None:
                while time.perf_counter() - began < seconds:
                    record = example_task(source, len(latencies), InstanceId("0" * 32))
                    asked = time.perf_counter()
                    with state.transaction() as transaction:
                        transaction.put(record)
                    await state.durable()
                    latencies.append(time.perf_counter() - asked)

            async with asyncio.TaskGroup() as work:
                for _ in range(committers):
                    work.create_task(commit_on_and_on())
            took = time.perf_counter() - began
            writing.cancel()
    latencies.sort()
    return {
        "commits_per_second": round(len(latencies) / took, 1),
        "latency_ms_p50": round(latencies[len(latencies) // 2] * 1000, 2),
        "latency_ms_p99": round(latencies[len(latencies) * 99 // 100] * 1000, 2),
        "commits_per_sync": round(batches.total() and sum(n * c for n, c in batches.items()) / batches.total(), 1),
    }


# ---------------------------------------------------------------- a large state


async def _fill(path: Path, tasks: int, hosts: int) -> None:
    source = random.Random(_SEED)
    async with SqliteJournal.open(path) as store:
        state = await load_state(store)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(store.run())
            instances = [example_instance(source, number) for number in range(hosts)]
            with state.transaction() as transaction:
                for instance in instances:
                    transaction.put(instance)
            for number in range(tasks):
                with state.transaction() as transaction:
                    transaction.put(example_task(source, number, instances[number % hosts].id))
                if number % 5000 == 0:
                    await state.durable()
            await state.durable()
            writing.cancel()


async def _load(path: Path) -> Json:
    process = psutil.Process()
    before = process.memory_info().rss
    began = time.perf_counter()
    async with SqliteJournal.open(path) as store:
        state: State = await load_state(store)
        took = time.perf_counter() - began
        held = process.memory_info().rss - before
        records = len(state.tasks) + len(state.instances)
    return {
        "seconds": round(took, 2),
        "database_mb": round(os.stat(path).st_size / 1e6, 1),
        "memory_mb": round(held / 1e6, 1),
        "bytes_per_record": held // records,
        "process_mb": round((before + held) / 1e6, 1),
    }


def example_task(source: random.Random, number: int, instance_id: InstanceId) -> TaskRecord:
    """Return a running task of one of 100 families, with what a usual web container has."""
    task_id = TaskId(new_hex_id(source))
    family = f"web{number % 100}"
    arn = f"arn:aws:ecs:us-east-1:123456789012:container/default/{task_id}/{new_uuid(source)}"
    container = ContainerSpec(
        name="web",
        image="registry.example/team/web:1.2.3",
        container_arn=arn,
        command=("httpd", "-f", "-p", "80"),
        environment={f"VARIABLE_{each}": f"the value of variable {each}" for each in range(5)},
        cpu_units=128,
        memory_mib=64,
        ports=(PortMapping(container_port=80),),
        health_check=HealthCheck(command=("CMD-SHELL", "wget -q -O - localhost || exit 1")),
        log=LogConfiguration(driver="json-file", options={"max-size": "10m"}),
    )
    report = ContainerReport(
        name="web",
        status=ContainerStatus.RUNNING,
        runtime_id=f"{source.getrandbits(256):064x}",
        image_digest="sha256:" + "cd" * 32,
        bindings=(
            NetworkBinding(bind_ip="0.0.0.0", container_port=80, host_port=32768 + number % 1000, protocol="tcp"),
        ),
        health=HealthStatus.HEALTHY,
        started_at=number + 1.5,
    )
    return TaskRecord(
        id=task_id,
        cluster="default",
        spec=TaskSpec(
            task_arn=f"arn:aws:ecs:us-east-1:123456789012:task/default/{task_id}",
            cluster="default",
            family=family,
            revision=1,
            containers=(container,),
            group=f"service:{family}",
        ),
        created_at=float(number),
        launch_type="EXTERNAL",
        status=TaskStatus.RUNNING,
        instance_id=instance_id,
        resources=Resources(cpu_units=128, memory_mib=64),
        group=f"service:{family}",
        started_by=f"ecs-svc/{number % 100}",
        containers=(report,),
        reported_seq=4,
        pull_started_at=number + 1.1,
        pull_stopped_at=number + 1.2,
        started_at=number + 1.5,
        version=5,
    )


def example_instance(source: random.Random, number: int) -> InstanceRecord:
    facts = HostFacts(
        hostname=f"node{number}",
        agent_version="0.1.0",
        docker_version="20.10.24",
        resources=Resources(cpu_units=4096, memory_mib=7900, ports=frozenset({("tcp", 22), ("tcp", 2376)})),
        disk_mib=100_000,
        attributes={"ecs.os-type": "linux", "ecs.cpu-architecture": "x86_64", "ecs.availability-zone": "a"},
        metrics_address="0.0.0.0:6190",
    )
    return InstanceRecord(
        id=InstanceId(new_hex_id(source)),
        cluster="default",
        public_key=f"{source.getrandbits(256):043x}",
        registered_at=1.0,
        facts=facts,
    )


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Measure the journal.")
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="where to write (the disk to measure)")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--hosts", type=int, default=5000)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load is not None:
        result = asyncio.run(_load(given.load))
    else:
        result = journal(given.directory, seconds=given.seconds, tasks=given.tasks, hosts=given.hosts)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
