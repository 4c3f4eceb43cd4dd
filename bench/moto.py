"""moto's in-memory mock of AWS, in a process of its own: what the API's figures stand beside."""

import socket
import sys
from typing import Any, Final
from urllib.request import Request, urlopen

import boto3
from botocore.config import Config

from bench.common import Json
from tests.e2e.harness import Installation, eventually

__all__ = ["Moto"]


class Moto:
    """The server, on loopback, with a cluster and one task definition; it stops with the Installation."""

    #: It checks no signature, so any will do.
    KEYS: Final = {"key_id": "a" * 16, "secret": "b" * 16}

    def __init__(self, homeport: Installation, container: Json) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._container = container
        homeport.spawn("moto", sys.executable, "-m", "moto.server", "-p", str(port))
        eventually(self._answers, within_s=60)
        self.ecs = self._client("ecs")
        self.prepare()

    def _answers(self) -> bool:
        with urlopen(self.url + "/moto-api/", timeout=2) as answer:
            return bool(answer.status == 200)

    def _client(self, service: str) -> Any:
        return boto3.client(
            service, endpoint_url=self.url, region_name="us-east-1", config=Config(retries={"max_attempts": 1}),
            aws_access_key_id=self.KEYS["key_id"], aws_secret_access_key=self.KEYS["secret"],
        )  # fmt: skip

    def prepare(self) -> None:
        """Forget everything, then make the cluster, the task definition and one task anew."""
        with urlopen(Request(self.url + "/moto-api/reset", method="POST"), timeout=30) as answer:
            assert answer.status == 200
        self.ecs.create_cluster(clusterName="default")
        self.ecs.register_task_definition(family="api", networkMode="awsvpc", containerDefinitions=[self._container])
        subnet = self._client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
        #: The members of RunTask: for FARGATE, as for EC2 moto wants instances with signed papers.
        self.run: Json = {
            "taskDefinition": "api",
            "launchType": "FARGATE",
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": []}},
        }
        (task,) = self.ecs.run_task(**self.run)["tasks"]
        self.task: str = task["taskArn"]
