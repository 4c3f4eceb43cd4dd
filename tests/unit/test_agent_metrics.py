"""The agent's Prometheus endpoint."""

import asyncio
import shutil
import subprocess

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from agent.metrics import AgentMetrics, ContainerSample, metrics_app
from agent.usage import ContainerUsage
from homeport.ids import TaskId
from homeport.status import HealthStatus


def sample(container: str = "web", *, pid: int = 7, health: HealthStatus | None = None) -> ContainerSample:
    return ContainerSample(
        task_id=TaskId("t1"),
        family="shop",
        cluster="default",
        container=container,
        container_id="c1",
        pid=pid,
        restart_count=2,
        health=health,
    )


class Source:
    def __init__(self, *samples: ContainerSample) -> None:
        self.samples = samples

    def containers(self) -> tuple[ContainerSample, ...]:
        return self.samples


USAGE = ContainerUsage(cpu_seconds=1.5, memory_bytes=1000, memory_working_set_bytes=900, oom_kills=1)


def read(_pid: int) -> ContainerUsage:
    return USAGE


async def scrape(source: Source, metrics: AgentMetrics | None = None, accept: str = "") -> str:
    app = metrics_app(metrics or AgentMetrics(version="1.2.3"), source, read=read)
    async with TestClient(TestServer(app)) as client, client.get("/metrics", headers={"Accept": accept}) as answer:
        assert answer.status == 200
        return await answer.text()


Labels = frozenset[tuple[str, str]]


def at(**labels: str) -> Labels:
    return frozenset(labels.items())


WEB = at(cluster="default", family="shop", task="t1", container="web")


def values(text: str, name: str) -> dict[Labels, float]:
    return {
        at(**sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


async def test_a_container_has_its_figures_under_its_task() -> None:
    text = await scrape(Source(sample()))
    assert values(text, "homeport_container_cpu_usage_seconds_total") == {WEB: 1.5}
    assert values(text, "homeport_container_memory_working_set_bytes") == {WEB: 900}
    assert values(text, "homeport_container_oom_kills_total") == {WEB: 1}
    assert values(text, "homeport_container_restarts_total") == {WEB: 2}


async def test_what_is_not_known_has_no_series() -> None:
    text = await scrape(Source(sample()))
    assert values(text, "homeport_container_memory_limit_bytes") == {}
    assert values(text, "homeport_container_health") == {}


async def test_health_is_one_for_the_status_that_holds() -> None:
    text = await scrape(Source(sample(health=HealthStatus.UNHEALTHY)))
    found = {dict(labels)["status"]: value for labels, value in values(text, "homeport_container_health").items()}
    assert found == {"HEALTHY": 0, "UNHEALTHY": 1, "UNKNOWN": 0}


async def test_a_container_that_does_not_run_uses_nothing_but_keeps_its_restarts() -> None:
    text = await scrape(Source(sample(pid=0)))
    assert values(text, "homeport_container_cpu_usage_seconds_total") == {}
    assert len(values(text, "homeport_container_restarts_total")) == 1


async def test_series_vanish_with_their_task() -> None:
    source = Source(sample())
    app = metrics_app(AgentMetrics(version="1"), source, read=read)
    async with TestClient(TestServer(app)) as client:
        before = await (await client.get("/metrics")).text()
        source.samples = ()
        after = await (await client.get("/metrics")).text()
    assert 'task="t1"' in before
    assert 'task="t1"' not in after


async def test_every_call_of_the_engine_has_series_before_its_first_failure() -> None:
    metrics = AgentMetrics(version="1")
    text = await scrape(Source(), metrics)
    assert values(text, "homeport_agent_engine_call_errors_total")[at(call="start", error="EngineTimeout")] == 0
    metrics.observe("start", 0.3, "EngineTimeout")
    metrics.observe("start", 0.3, "ok")
    metrics.observe("start", 0.3, "cancelled")
    text = await scrape(Source(), metrics)
    assert values(text, "homeport_agent_engine_call_errors_total")[at(call="start", error="EngineTimeout")] == 1
    assert values(text, "homeport_agent_engine_call_duration_seconds_count")[at(call="start")] == 2


async def test_the_uplink_and_the_host_are_told() -> None:
    metrics = AgentMetrics(version="1")
    metrics.set_uplink_connected(True)
    text = await scrape(Source(), metrics)
    assert values(text, "homeport_agent_uplink_connected") == {at(): 1}
    assert values(text, "homeport_agent_host_memory_size_bytes")[at()] > 0
    assert values(text, "homeport_agent_host_cpu_seconds_total")[at(mode="user")] > 0


async def test_openmetrics_is_one_document() -> None:
    text = await scrape(Source(sample()), accept="application/openmetrics-text; version=1.0.0")
    assert text.count("# EOF") == 1
    families = parse_openmetrics(text)  # type: ignore[no-untyped-call]
    assert "homeport_container_cpu_usage_seconds" in {family.name for family in families}


async def test_promtool_has_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    text = await scrape(Source(sample(health=HealthStatus.HEALTHY)))
    done = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("reason", "status"), [("", 200), ("the Docker Engine is silent", 503)])
async def test_healthz_says_why_the_agent_is_not_well(reason: str, status: int) -> None:
    app = metrics_app(AgentMetrics(version="1"), Source(), unwell=lambda: reason)
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/healthz")
        assert answer.status == status
        assert (await answer.text()).strip() == (reason or "ok")
