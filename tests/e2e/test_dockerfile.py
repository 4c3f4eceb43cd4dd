"""The Dockerfile, built for real on a Debian image made here, and what its images do."""

import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.e2e.debian import copy_source, debian_image, make_wheels
from tests.e2e.harness import eventually
from tests.packages import run

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Both images, by target."""
    context = tmp_path_factory.mktemp("context")
    copy_source(context)
    make_wheels(context / "wheelhouse")
    tag = uuid.uuid4().hex[:8]
    images = {target: f"homeport-test/{target}:{tag}" for target in ("controlplane", "agent")}
    before = _untagged()
    try:
        for target, image in images.items():
            # The host's network: building asks Debian's mirror for two packages, by the host's route.
            run(
                "docker", "build", "--network=host", f"--build-arg=BASE={debian_image()}",
                f"--target={target}", f"--tag={image}", context,
            )  # fmt: skip
        yield images
    finally:
        run("docker", "rmi", "--force", *images.values(), check=False)
        if left := _untagged() - before:
            run("docker", "rmi", *left, check=False)


def _untagged() -> set[str]:
    """Return the untagged images that a build of this Dockerfile left: its stages, known by their environment."""
    found = set(run("docker", "images", "--filter=dangling=true", "--quiet", "--no-trunc").stdout.split())
    return {
        image for image in found if any("HOMEPORT_DATA_DIR" in each for each in inspect(image)["Config"]["Env"] or ())
    }


@contextmanager
def container(image: str, *command: str, options: tuple[str, ...] = ()) -> Iterator[str]:
    """Run a container of `image`, and remove it and its volumes afterwards."""
    name = f"homeport-test-{uuid.uuid4().hex[:8]}"
    run("docker", "run", "--detach", "--name", name, *options, image, *command)
    try:
        yield name
    finally:
        run("docker", "rm", "--force", "--volumes", name)


def inspect(name: str) -> dict[str, Any]:
    (found,) = json.loads(run("docker", "inspect", name).stdout)
    document: dict[str, Any] = found
    return document


@pytest.fixture(scope="module")
def control_plane(images: dict[str, str]) -> Iterator[str]:
    with container(images["controlplane"]) as name:
        eventually(lambda: inspect(name)["State"]["Health"]["Status"] == "healthy", within_s=60)
        yield name


def read(name: str, path: str) -> str:
    return run("docker", "exec", name, "cat", f"/var/lib/homeport/{path}").stdout


def client(name: str, service: str, scratch: Path) -> Any:
    """Return a client of the control plane in a container, over TLS."""
    ca = scratch / "ca.pem"
    ca.write_text(read(name, "controlplane/ca.pem"))
    key = json.loads(read(name, "controlplane/credentials.json"))
    return boto3.client(
        service,
        endpoint_url=f"https://{inspect(name)['NetworkSettings']['IPAddress']}:6181",
        region_name="us-east-1",
        aws_access_key_id=key["access_key_id"],
        aws_secret_access_key=key["secret_access_key"],
        verify=str(ca),
    )


def test_the_control_plane_is_healthy_answers_over_tls_and_is_not_root(control_plane: str, tmp_path: Path) -> None:
    assert client(control_plane, "ecs", tmp_path).list_clusters()["clusterArns"]
    users = run("docker", "top", control_plane, "-o", "uid,pid").stdout.splitlines()[1:]
    assert users
    assert not [line for line in users if line.split()[0] == "0"]


def test_stopping_the_control_plane_is_a_clean_end(images: dict[str, str]) -> None:
    with container(images["controlplane"]) as name:
        eventually(lambda: inspect(name)["State"]["Health"]["Status"] == "healthy", within_s=60)
        run("docker", "stop", "--time=20", name)
        assert inspect(name)["State"]["ExitCode"] == 0


def test_an_agent_that_has_not_joined_says_what_to_do(images: dict[str, str]) -> None:
    done = run("docker", "run", "--rm", images["agent"], check=False)
    assert done.returncode == 78
    assert "homeport-agent join" in done.stderr


def test_an_agent_joins_from_its_image_and_connects(images: dict[str, str], control_plane: str, tmp_path: Path) -> None:
    activation = client(control_plane, "ssm", tmp_path).create_activation(IamRole="homeport")
    endpoint = json.loads(read(control_plane, "controlplane/endpoint.json"))
    volume = f"homeport-test-{uuid.uuid4().hex[:8]}"
    mounts = (f"--volume={volume}:/var/lib/homeport", "--volume=/var/run/docker.sock:/var/run/docker.sock")
    try:
        run(
            "docker", "run", "--rm", *mounts, images["agent"], "join",
            "--server", endpoint["network_url"], "--ca-hash", endpoint["ca_hash"],
            "--activation-id", activation["ActivationId"], "--activation-code", activation["ActivationCode"],
        )  # fmt: skip
        with container(images["agent"], options=mounts):
            ecs = client(control_plane, "ecs", tmp_path)
            arns = ecs.list_container_instances()["containerInstanceArns"]

            def connected() -> bool:
                (found,) = ecs.describe_container_instances(containerInstances=arns)["containerInstances"]
                return bool(found["agentConnected"])

            eventually(connected)
    finally:
        run("docker", "volume", "rm", "--force", volume)


def test_the_control_plane_image_hands_the_agent_to_new_hosts(control_plane: str) -> None:
    address = inspect(control_plane)["NetworkSettings"]["IPAddress"]
    # A host that has no CA yet, as in the join command; the digests in the script are what is trusted.
    curl = ("docker", "run", "--rm", "--network=host", debian_image(), "curl", "-fsSk")
    script = run(*curl, f"https://{address}:6181/install.sh").stdout
    wheel = re.search(r"[0-9a-f]{64} (homeport-\S+\.whl)", script)
    assert wheel is not None
    assert f"server=https://{address}:6181" in script
    assert "aiodocker-" in script
    run(*curl, "--output", os.devnull, f"https://{address}:6181/fleet/v1/wheels/{wheel[1]}")
