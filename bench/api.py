"""The API: signed, durable RunTask and DescribeTasks per second, beside moto's in-memory mock, in one run."""

import json
import socket
import sys
from typing import Any
from urllib.request import urlopen

import boto3

from bench.common import Json, signed, wrk
from tests.e2e.harness import Installation, eventually

__all__ = ["api"]

_TARGET = "AmazonEC2ContainerServiceV20141113."
_CONTAINER = {"name": "app", "image": "busybox", "memory": 16}
HOSTS = 20


def api(homeport: Installation) -> Json:
    """Measure a control plane with simulated hosts, then moto, with the same requests."""
    homeport.simulate_hosts(HOSTS)
    definition = homeport.register("api", dict(_CONTAINER))
    (task,) = homeport.run(definition)
    homeport.wait(task, "RUNNING")
    key = json.loads((homeport.directory / "cp/controlplane/credentials.json").read_text())
    keys = {"key_id": key["access_key_id"], "secret": key["secret_access_key"]}
    url = homeport.endpoint["local_url"]
    ours = {
        "DescribeTasks": wrk(url, *signed(url, _TARGET + "DescribeTasks", {"tasks": [task]}, **keys)),
        "RunTask": wrk(url, *signed(url, _TARGET + "RunTask", {"taskDefinition": definition}, **keys)),
        "RunTask at about 500/s": wrk(
            url, *signed(url, _TARGET + "RunTask", {"taskDefinition": definition}, **keys), connections=50, pause_ms=95
        ),
    }
    theirs = _moto(homeport)
    return {
        "homeport": ours,
        "moto": theirs,
        "ratio": {
            name: round(ours[name]["per_second"] / theirs[name]["per_second"], 1)
            for name in ("DescribeTasks", "RunTask")
        },
        "budget": ">= 2,500 requests/s; p99 < 50 ms at 500 requests/s",
        "note": "64 connections (moto: 8); client, simulated hosts and server share the cores",
    }


def _moto(homeport: Installation) -> Json:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = homeport.spawn("moto", sys.executable, "-m", "moto.server", "-p", str(port))

    def answers() -> bool:
        with urlopen(url + "/moto-api/", timeout=2) as answer:
            return bool(answer.status == 200)

    eventually(answers, within_s=60)
    keys: dict[str, Any] = {"aws_access_key_id": "a" * 16, "aws_secret_access_key": "b" * 16}
    ecs = boto3.client("ecs", endpoint_url=url, region_name="us-east-1", **keys)
    ecs.create_cluster(clusterName="default")
    ecs.register_task_definition(family="api", networkMode="awsvpc", containerDefinitions=[_CONTAINER])
    run = {
        "taskDefinition": "api",
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": [_subnet(url, keys)], "securityGroups": []}},
    }
    (task,) = ecs.run_task(**run)["tasks"]
    signature = {"key_id": "a" * 16, "secret": "b" * 16}
    describe = signed(url, _TARGET + "DescribeTasks", {"tasks": [task["taskArn"]]}, **signature)
    result = {
        "DescribeTasks": wrk(url, *describe, connections=8),
        "RunTask": wrk(url, *signed(url, _TARGET + "RunTask", run, **signature), connections=8),
    }
    server.stop()
    return result


def _subnet(url: str, keys: dict[str, Any]) -> str:
    ec2 = boto3.client("ec2", endpoint_url=url, region_name="us-east-1", **keys)
    subnet: str = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    return subnet
