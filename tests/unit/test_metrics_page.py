"""docs/metrics.md lists every metric of both daemons.

`python -m tests.unit.test_metrics_page` brings its tables up to date.
"""

import asyncio
import re
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from agent.metrics import AgentMetrics, metrics_app
from agent.usage import ContainerUsage
from controlplane.metrics import ControlPlaneMetrics
from controlplane.state.service_records import ServiceRecord
from controlplane.state.state import State
from homeport.clock import SystemClock
from homeport.status import HealthStatus
from tests.fakes.journal import MemoryJournal
from tests.fakes.log_store import MemoryLogStore
from tests.unit.test_agent_metrics import Source, sample

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def control_plane() -> web.Application:
    state = State(MemoryJournal())
    service = ServiceRecord(id="1" * 32, cluster="default", name="web", created_at=1.0)
    with state.transaction() as transaction:
        transaction.put(service)
    metrics = ControlPlaneMetrics(SystemClock())
    metrics.attach(state)
    metrics.attach_logs(MemoryLogStore())
    metrics.expect_requests([("ecs", "RunTask")])
    application = web.Application()
    application.add_routes(metrics.routes(state))
    return application


def agent() -> web.Application:
    everything = ContainerUsage(**dict.fromkeys(ContainerUsage.__struct_fields__, 1))
    return metrics_app(
        AgentMetrics(version="1"), Source(sample(health=HealthStatus.HEALTHY)), read=lambda _: everything
    )


async def table(application: web.Application) -> str:
    """Return the Markdown table of what `/metrics` tells."""
    async with TestClient(TestServer(application)) as client:
        answer = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        text = await answer.text()
    rows = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    for family in sorted(families, key=lambda family: family.name):
        if family.name.startswith("homeport_"):
            name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
            labels = sorted({label for each in family.samples for label in each.labels} - {"le"})
            words = ", ".join(f"`{label}`" for label in labels)
            rows.append(f"| `{name}` | {family.type} | {words} | {family.documentation} |")
    return "\n".join(rows) + "\n"


async def render(page: str) -> str:
    """Return the page with its tables up to date."""
    for name, application in (("controlplane", control_plane()), ("agent", agent())):
        before, mark, after = page.partition(f"<!-- {name} -->\n\n")
        page = before + mark + await table(application) + re.sub(r"\A(\|.*\n)*", "", after)
    return page


async def test_the_page_lists_every_metric() -> None:
    page = PAGE.read_text()
    assert page == await render(page), "run: python -m tests.unit.test_metrics_page"


async def test_the_expressions_on_the_page_are_of_metrics_that_exist() -> None:
    page = PAGE.read_text()
    listed = set(re.findall(r"^\| `(homeport_\w+)`", page, re.MULTILINE))
    listed |= {f"{name}_{series}" for name in listed for series in ("bucket", "count")}
    used = set(re.findall(r"\bhomeport_\w+", page.partition("## What to be woken for")[2].partition("## Control")[0]))
    assert used
    assert used <= listed


if __name__ == "__main__":
    PAGE.write_text(asyncio.run(render(PAGE.read_text())))
