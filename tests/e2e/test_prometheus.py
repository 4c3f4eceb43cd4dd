"""A real Prometheus finds both daemons through `/sd/targets` and scrapes them."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.e2e.harness import Daemon, Installation, eventually

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed"),
]

CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: homeport
    http_sd_configs:
      - {{url: "{url}/sd/targets", refresh_interval: 1s}}
    relabel_configs:
      - {{source_labels: [__meta_homeport_job], target_label: job}}
      - {{source_labels: [__meta_homeport_hostname], target_label: hostname}}
      - {{source_labels: [__meta_homeport_cluster], target_label: cluster}}
      - {{source_labels: [__meta_homeport_attribute_ecs_os_type], target_label: os}}
"""


class Prometheus:
    """A Prometheus of the test's own."""

    def __init__(self, directory: Path, url: str) -> None:
        configuration = directory / "prometheus.yml"
        configuration.write_text(CONFIGURATION.format(url=url))
        subprocess.run(["promtool", "check", "config", configuration], check=True, capture_output=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        command = [
            "prometheus",
            f"--config.file={configuration}",
            f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address={self.address}",
        ]
        self.daemon = Daemon("prometheus", command, directory / "prometheus.log")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the present samples of an expression."""
        with urlopen(f"http://{self.address}/api/v1/query?{urlencode({'query': expression})}", timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

    def value(self, expression: str) -> float | None:
        """Return the one sample's value; None if there isn't exactly one."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else None


@pytest.fixture
def prometheus(homeport: Installation, tmp_path: Path) -> Iterator[Prometheus]:
    running = Prometheus(tmp_path, homeport.endpoint["local_url"])
    try:
        yield running
    finally:
        running.daemon.stop()


def test_prometheus_scrapes_the_control_plane_and_the_agent(
    homeport: Installation, prometheus: Prometheus, busybox: str
) -> None:
    container = {"name": "app", "image": busybox, "command": ["sleep", "600"], "stopTimeout": 1}
    definition = homeport.register("scraped", container)
    (task,) = homeport.run(definition)
    homeport.wait(task, "RUNNING")

    eventually(lambda: prometheus.value('up{job="controlplane"}') == 1)
    eventually(lambda: prometheus.value('up{job="agent"}') == 1)
    (agent,) = prometheus.query('up{job="agent"}')
    assert agent["metric"]["hostname"] == socket.gethostname()
    assert agent["metric"]["cluster"] == "default"
    assert agent["metric"]["os"] == "linux"

    eventually(lambda: prometheus.value('homeport_tasks{status="RUNNING",desired="RUNNING"}') == 1)
    eventually(lambda: prometheus.value('homeport_hosts{status="ACTIVE",connection="connected"}') == 1)
    eventually(lambda: prometheus.value("homeport_task_placement_duration_seconds_count") == 1)
    requests = 'homeport_api_requests_total{service="ecs",operation="RunTask",code="200"}'
    eventually(lambda: prometheus.value(requests) == 1)
    memory = 'homeport_container_memory_limit_bytes{job="agent"}'
    eventually(lambda: prometheus.value(memory) == 64 * 2**20)

    homeport.ecs.stop_task(task=task)
    homeport.wait(task, "STOPPED")
    eventually(lambda: prometheus.value('homeport_task_stops_total{code="UserInitiated"}') == 1)
    eventually(lambda: prometheus.value('homeport_tasks{status="RUNNING",desired="RUNNING"}') == 0)
    eventually(lambda: prometheus.query(memory) == [])  # the series went with its task
