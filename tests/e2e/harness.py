"""Real processes for end-to-end tests: a control plane and agents below one directory, killed at will."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import urlopen

import boto3
from botocore.config import Config

T = TypeVar("T")

__all__ = ["Daemon", "Installation", "eventually"]


#: What one activation can register, as in SSM.
_MAX_REGISTRATIONS = 1000


def eventually(check: Callable[[], T], *, within_s: float = 30.0, every_s: float = 0.05) -> T:
    """Return the first truthy result of `check`; fail with the last one after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            result: T | str = check()
            if result:
                return result  # type: ignore[return-value]  # truthy, so it is check's own
        except (OSError, AssertionError) as err:
            result = repr(err)
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s; last: {result!r}")
        time.sleep(every_s)


class Daemon:
    """One process whose output goes to a file."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """kill -9, and reap."""
        self.process.kill()
        self.process.wait(10)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM; return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(20)

    def output(self) -> str:
        return self.log.read_text(errors="replace")


class Installation:
    """A control plane and its agents, all below one directory."""

    def __init__(self, directory: Path, *, listen: str = "127.0.0.1:0") -> None:
        self.directory = directory
        self.listen = listen
        self.daemons: list[Daemon] = []
        self._control_plane: Daemon | None = None
        self._ecs: Any = None
        self._docker_hosts: dict[str, str | None] = {}

    # ------------------------------------------------------------ processes

    def spawn(
        self, name: str, *arguments: str, prefix: Sequence[str] = (), env: dict[str, str] | None = None
    ) -> Daemon:
        daemon = Daemon(name, [*prefix, *arguments], self.directory / f"{name}.log", env)
        self.daemons.append(daemon)
        return daemon

    def start_control_plane(self, *options: str, prefix: Sequence[str] = ()) -> Daemon:
        """Start (or start again, on the same port) the control plane and wait until it is ready."""
        endpoint_file = self.directory / "cp/controlplane/endpoint.json"
        if endpoint_file.exists():
            self.listen = urlsplit(json.loads(endpoint_file.read_text())["local_url"]).netloc
            endpoint_file.unlink()
        daemon = self.spawn("controlplane", *self.control_plane_command(*options), prefix=prefix)
        self._control_plane = daemon

        def ready() -> bool:
            assert daemon.process.poll() is None, daemon.output()
            return endpoint_file.exists() and self.get("/readyz").startswith("ok")

        eventually(ready)
        return daemon

    def control_plane_command(self, *options: str) -> list[str]:
        """What runs the control plane."""
        program = [sys.executable, "-m", "controlplane.main", "run", "--data-dir", str(self.directory / "cp")]
        return [*program, "--listen", self.listen, "--heartbeat", "1", *options]

    def agent_command(self, name: str, *options: str) -> list[str]:
        """What runs the agent of host `name`."""
        program = [sys.executable, "-m", "agent.main", "run", "--data-dir", str(self.directory / name)]
        return [*program, "--metrics-listen", "127.0.0.1:0", *options]

    @property
    def control_plane(self) -> Daemon:
        assert self._control_plane is not None
        return self._control_plane

    @property
    def endpoint(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.directory / "cp/controlplane/endpoint.json").read_text())
        return document

    def get(self, path: str) -> str:
        endpoint = self.endpoint
        trust = ssl.create_default_context(cafile=endpoint["ca_bundle"]) if endpoint["ca_bundle"] else None
        with urlopen(endpoint["local_url"] + path, timeout=5, context=trust) as answer:
            text: str = answer.read().decode()
            return text

    def join(
        self, name: str = "agent", *, server: str | None = None, prefix: Sequence[str] = (), options: Sequence[str] = ()
    ) -> None:
        """Make an activation and join a host under `name`."""
        activation = self.client("ssm").create_activation(IamRole="homeport", DefaultInstanceName=name)
        done = subprocess.run(
            [
                *prefix, sys.executable, "-m", "agent.main", "join",
                "--server", server or self.endpoint["local_url"],
                "--activation-id", activation["ActivationId"],
                "--activation-code", activation["ActivationCode"],
                "--data-dir", str(self.directory / name), *options,
            ],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def start_agent(
        self,
        name: str = "agent",
        *,
        docker_host: str | None = None,
        prefix: Sequence[str] = (),
        options: Sequence[str] = (),
        wait: bool = True,
    ) -> Daemon:
        """Start a joined agent; wait until the control plane sees it connected."""
        self._docker_hosts[name] = docker_host
        daemon = self.spawn(
            name,
            *self.agent_command(name, *options),
            prefix=prefix,
            env={"DOCKER_HOST": docker_host} if docker_host else None,
        )
        if wait:
            instance = self.instance_id(name)

            def connected() -> bool:
                assert daemon.process.poll() is None, daemon.output()
                (found,) = self.ecs.describe_container_instances(containerInstances=[instance])["containerInstances"]
                return bool(found["agentConnected"])

            eventually(connected)
        return daemon

    def simulate_hosts(self, count: int) -> Daemon:
        """Start hosts that speak the protocol and run nothing, in one process; wait until all are connected."""
        ssm = self.client("ssm")
        activations = [
            ssm.create_activation(IamRole="homeport", RegistrationLimit=min(count, _MAX_REGISTRATIONS))
            for _ in range(-(-count // _MAX_REGISTRATIONS))
        ]
        hosts = self.spawn(
            "hosts",
            *(sys.executable, "-m", "tests.fakes.hosts", self.endpoint["local_url"], str(count)),
            *(each[member] for each in activations for member in ("ActivationId", "ActivationCode")),
        )
        eventually(lambda: "connected" in hosts.output(), within_s=60)
        return hosts

    def instance_id(self, name: str = "agent") -> str:
        identity = json.loads((self.directory / name / "agent/identity.json").read_text())
        instance: str = identity["instance_id"]
        return instance

    def docker(self, *arguments: str, name: str = "agent") -> str:
        """Run the docker client against the Engine of host `name`."""
        host = self._docker_hosts.get(name)
        done = subprocess.run(
            ["docker", *(("-H", host) if host else ()), *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def containers(self, *filters: str, name: str = "agent", everything: bool = True) -> list[str]:
        """Return the ids of the containers that host `name` made, e.g. those with `status=running`."""
        asked = [f"label=homeport.instance={self.instance_id(name)}", *filters]
        found = self.docker(
            "ps",
            "-q",
            "--no-trunc",
            *(("-a",) if everything else ()),
            *(f"--filter={each}" for each in asked),
            name=name,
        )
        return found.split()

    def stop_all(self) -> None:
        """Stop every process, then remove every container they made."""
        for daemon in reversed(self.daemons):
            try:
                daemon.stop()
            except subprocess.TimeoutExpired:
                daemon.kill()
        for name in self._docker_hosts:
            if left := self.containers(name=name):
                self.docker("rm", "-f", *left, name=name)

    # ------------------------------------------------------------ clients

    def client(self, service: str, **options: Any) -> Any:
        """Return a client that repeats nothing by itself; `options` are of botocore's Config."""
        key = json.loads((self.directory / "cp/controlplane/credentials.json").read_text())
        return boto3.client(
            service,
            endpoint_url=self.endpoint["local_url"],
            region_name="us-east-1",
            aws_access_key_id=key["access_key_id"],
            aws_secret_access_key=key["secret_access_key"],
            verify=self.endpoint["ca_bundle"] or True,
            config=Config(retries={"total_max_attempts": 1}, max_pool_connections=50, **options),
        )

    @property
    def ecs(self) -> Any:
        if self._ecs is None:
            self._ecs = self.client("ecs")
        return self._ecs

    # ------------------------------------------------------------ tasks

    def register(self, family: str, *containers: dict[str, Any], **more: Any) -> str:
        """Register a task definition of these containers and return `family:revision`.

        Unless said otherwise they have 64 MiB and are killed 2 s after SIGTERM, which a shell as process 1 ignores.
        """
        definitions = [{"memory": 64, "stopTimeout": 2, **container} for container in containers]
        answer = self.ecs.register_task_definition(family=family, containerDefinitions=definitions, **more)[
            "taskDefinition"
        ]
        return f"{answer['family']}:{answer['revision']}"

    def run(self, definition: str, **more: Any) -> list[str]:
        """Run tasks and return their ARNs; placement failures fail the test."""
        answer = self.ecs.run_task(taskDefinition=definition, **more)
        assert answer["failures"] == []
        return [task["taskArn"] for task in answer["tasks"]]

    def task(self, arn: str) -> dict[str, Any]:
        (found,) = self.ecs.describe_tasks(tasks=[arn])["tasks"]
        document: dict[str, Any] = found
        return document

    def wait(self, arn: str, status: str, *, within_s: float = 40.0) -> dict[str, Any]:
        """Return the task once its lastStatus is `status`."""

        def reached() -> dict[str, Any] | None:
            task = self.task(arn)
            assert not (status == "RUNNING" and task["lastStatus"] == "STOPPED"), task
            return task if task["lastStatus"] == status else None

        found = eventually(reached, within_s=within_s)
        assert found is not None
        return found


@contextmanager
def installation(directory: Path, **options: Any) -> Iterator[Installation]:
    """Yield an Installation whose processes are stopped afterwards."""
    running = Installation(directory, **options)
    try:
        yield running
    finally:
        running.stop_all()
