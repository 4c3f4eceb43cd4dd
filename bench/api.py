"""The API: signed, durable RunTask and DescribeTasks per second, beside moto's in-memory mock, in one run."""

import json

from bench.common import Json, signed, wrk
from bench.moto import Moto
from tests.e2e.harness import Installation

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
    moto = Moto(homeport, _CONTAINER)
    describe = signed(moto.url, _TARGET + "DescribeTasks", {"tasks": [moto.task]}, **moto.KEYS)
    return {
        "DescribeTasks": wrk(moto.url, *describe, connections=8),
        "RunTask": wrk(moto.url, *signed(moto.url, _TARGET + "RunTask", moto.run, **moto.KEYS), connections=8),
    }
