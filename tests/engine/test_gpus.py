"""GPUs on a real Engine, which need not have any: it takes the request, and says what lacks when it is to start."""

import asyncio
import json
import urllib.parse
from typing import Any

import pytest

from agent.engine.errors import EngineError
from agent.engine.plan import container_plan
from tests.engine.conftest import Lab

pytestmark = pytest.mark.engine


async def host_config(lab: Lab, container_id: str) -> dict[str, Any]:
    """Ask the Engine what it has noted of a container, beside our own client."""
    path = urllib.parse.urlsplit(lab.engine.docker_host).path
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(f"GET /containers/{container_id}/json HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    document: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    found: dict[str, Any] = document["HostConfig"]
    return found


async def test_the_engine_takes_the_request_for_certain_gpus(lab: Lab) -> None:
    container = lab.container(gpus=2)
    plan = container_plan(
        lab.task_id(), lab.task(container), container, owner=lab.owner, cgroup_parent=None, gpu_ids=("GPU-a", "GPU-b")
    )
    container_id = await lab.engine.create(plan)
    (request,) = (await host_config(lab, container_id))["DeviceRequests"]
    assert (request["Driver"], request["DeviceIDs"]) == ("nvidia", ["GPU-a", "GPU-b"])
    assert request["Capabilities"] == [["gpu"]]
    with pytest.raises(EngineError, match=r"(?i)nvidia|gpu"):
        await lab.engine.start(container_id)
