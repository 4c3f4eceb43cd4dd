"""A host that runs systemd, as a container on this machine's Engine, which it shares."""

import json
import shlex
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from tests.e2e.harness import eventually
from tests.packages import run

__all__ = ["Machine"]


class Machine:
    """Commands on such a host."""

    def __init__(self, name: str, scratch: Path) -> None:
        self.name = name
        self._scratch = scratch

    @classmethod
    @contextmanager
    def started(cls, image: str) -> "Iterator[Machine]":
        """Boot one from `image`; gone afterwards. systemd needs its own control groups and the right to mount."""
        name = f"homeport-test-{uuid.uuid4().hex[:8]}"
        scratch = tempfile.TemporaryDirectory(prefix=f"{name}-")
        machine = cls(name, Path(scratch.name))
        try:
            run(
                "docker", "run", "--detach", "--name", name, "--hostname", name,
                "--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--security-opt=seccomp=unconfined",
                *_cgroup_options(),
                "--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec", "--env=container=docker",
                "--volume=/var/run/docker.sock:/engine/docker.sock",
                image, "/sbin/init",
            )  # fmt: skip
            eventually(lambda: machine.sh("systemctl is-system-running; true") in ("running", "degraded"))
            # /run is a file system of its own in there, made after the volumes: the socket has to be shown in it.
            machine.sh("ln -s /engine/docker.sock /run/docker.sock")
            yield machine
        finally:
            run("docker", "rm", "--force", "--volumes", name)
            scratch.cleanup()

    def sh(self, script: str) -> str:
        """Run a shell script as root there and return what it printed."""
        return run("docker", "exec", self.name, "sh", "-c", script).stdout.strip()

    def copy(self, source: Path, target: str) -> None:
        """Copy a file or directory there."""
        run("docker", "cp", source, f"{self.name}:{target}")

    def show(self, unit: str, name: str) -> str:
        """Return one property of a unit."""
        return self.sh(f"systemctl show --value --property {name} {unit}")

    def journal(self, unit: str) -> str:
        """Return what a unit has logged."""
        return self.sh(f"journalctl --no-pager --unit {unit}")

    def settings(self, daemon: str, **values: str) -> None:
        """Write /etc/homeport/DAEMON.env."""
        lines = "\n".join(f'{name}="{value}"' for name, value in values.items())
        self.sh(f"mkdir -p /etc/homeport && printf '%s\\n' {shlex.quote(lines)} > /etc/homeport/{daemon}.env")

    def drop_in(self, unit: str, text: str) -> None:
        """Add to a unit, as `systemctl edit` does."""
        directory = f"/etc/systemd/system/{unit}.service.d"
        self.sh(f"mkdir -p {directory} && printf %s {shlex.quote(text)} > {directory}/test.conf")
        self.sh("systemctl daemon-reload")

    def get(self, url: str) -> str:
        """GET a URL from there."""
        return run("docker", "exec", self.name, "curl", "-fsS", url).stdout

    # ------------------------------------------------------------ Homeport there

    def ecs(self, service: str = "ecs") -> Any:
        """Return a client of the control plane there, over TLS and the network, as another host would use it."""
        key = json.loads(self.sh("cat /var/lib/homeport/controlplane/credentials.json"))
        address = run("docker", "inspect", "--format={{.NetworkSettings.IPAddress}}", self.name).stdout.strip()
        ca = self._scratch / "ca.pem"
        ca.write_text(self.sh("cat /var/lib/homeport/controlplane/ca.pem"))
        return boto3.client(
            service,
            endpoint_url=f"https://{address}:6181",
            region_name="us-east-1",
            aws_access_key_id=key["access_key_id"],
            aws_secret_access_key=key["secret_access_key"],
            verify=str(ca),
        )

    def instances(self) -> list[dict[str, Any]]:
        """Return the container instances of the default cluster."""
        ecs = self.ecs()
        arns = ecs.list_container_instances()["containerInstanceArns"]
        found: list[dict[str, Any]] = ecs.describe_container_instances(containerInstances=arns)["containerInstances"]
        return found

    def join(self) -> None:
        """Join this host to the control plane on it."""
        activation = self.ecs("ssm").create_activation(IamRole="homeport")
        self.sh(
            "/opt/homeport/bin/homeport-agent join --data-dir /var/lib/homeport --server http://127.0.0.1:6180"
            f" --activation-id {activation['ActivationId']} --activation-code {activation['ActivationCode']}"
        )

    def containers(self, *options: str) -> list[str]:
        """Return the running containers that this host's agent made; with `--all`, every one."""
        instance = json.loads(self.sh("cat /var/lib/homeport/agent/identity.json"))["instance_id"]
        mine = f"--filter=label=homeport.instance={instance}"
        return run("docker", "ps", "--quiet", "--no-trunc", mine, *options).stdout.split()

    def remove_containers(self) -> None:
        """Remove them, and those that have stopped."""
        if left := self.containers("--all"):
            run("docker", "rm", "--force", *left)


def _cgroup_options() -> list[str]:
    """Return how systemd gets control groups it may write: with v1 its named hierarchy, with v2 the one there is."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return ["--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"]
    return ["--cgroupns=private", "--volume=/sys/fs/cgroup/systemd:/sys/fs/cgroup/systemd:rw"]
