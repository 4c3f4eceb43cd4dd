"""The pure parts of the fleet's bench: growth, table, shares of a profile, stalls, percentiles, its hosts' tasks."""

import asyncio
import json

import pytest

from bench.fleet.growth import growth, per_doubling, table
from bench.fleet.page import BEGIN, END, PAGE, RESULTS, rewritten
from bench.fleet.parts import part_of, shares
from bench.fleet.probes import percentile
from bench.fleet.stalls import read_delays, stalls_since
from bench.fleet.workload import EPHEMERAL, SimulatedWorkload, Tally
from homeport.ids import TaskId
from homeport.protocol import Assignment, Assignments, HostFacts
from homeport.spec import ContainerSpec, TaskSpec
from homeport.status import DesiredStatus, TaskStatus


@pytest.mark.parametrize(
    ("points", "factor"),
    [
        ({500: 1.0, 1000: 2.0, 2000: 4.0}, 2.0),
        ({500: 3.0, 1000: 3.0, 5000: 3.0}, 1.0),
        ({500: 1.0, 1000: 4.0}, 4.0),
        ({500: 8.0, 1000: 4.0}, 0.5),
        ({500: 1.0}, None),
        ({}, None),
    ],
)
def test_growth_is_what_a_figure_is_multiplied_by_when_the_fleet_doubles(
    points: dict[int, float], factor: float | None
) -> None:
    assert per_doubling(points) == (None if factor is None else pytest.approx(factor))


def test_the_table_shows_each_size_and_leaves_out_what_was_not_measured() -> None:
    sizes = {500: {"idle": {"rss_mb": 100.0}}, 1000: {"idle": {"rss_mb": 150.0}, "storm": {"seconds": 1.25}}}
    rendered = table({"sizes": {str(size): each for size, each in sizes.items()}, "growth_per_doubling": growth(sizes)})
    rows = {cells[1].strip(): cells[2:-1] for line in rendered.splitlines() if (cells := line.split("|"))}
    assert [cell.strip() for cell in rows["hosts"]] == ["500", "1,000", "per doubling"]
    assert [cell.strip() for cell in rows["resident memory"]] == ["100 MB", "150 MB", "× 1.50"]
    assert [cell.strip() for cell in rows["all connect at once, until heard out"]] == ["", "1.2 s", ""]


def test_figures_of_a_busy_machine_are_called_that() -> None:
    figures: dict[str, object] = {"sizes": {}, "growth_per_doubling": {}}
    assert "busy" not in table({**figures, "machine": {"load_average": 3.9, "cores": 2}})
    assert "load average 24" in table({**figures, "machine": {"load_average": 24.1, "cores": 2}})


def test_the_readme_has_the_figures_that_were_measured() -> None:
    page = PAGE.read_text()
    assert page == rewritten(page, table(json.loads(RESULTS.read_text())["fleet"])), "run: python -m bench.fleet.page"


def test_figures_take_their_place_on_a_page() -> None:
    page = rewritten(f"before\n{BEGIN}\nold\n{END}\nafter\n", "new\n")
    assert page == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert rewritten(page, "new") == page


@pytest.mark.parametrize(
    ("stack", "part"),
    [
        (
            "run (uvloop/loop.pyx:1);_serve (controlplane/api/server.py:9);place (controlplane/scheduling/x.py:2)",
            "place",
        ),
        ("_read (controlplane/fleet/session.py:1);_take_reports (controlplane/fleet/session.py:5)", "fleet, up"),
        ("_send_all (controlplane/fleet/session.py:1);send_frame (aiohttp/_websocket/writer.py:5)", "fleet, down"),
        ("_look (controlplane/services/loop.py:1);put (controlplane/state/table.py:5)", "state"),
        ("run (controlplane/store/sqlite.py:1)", "journal"),
        ("run (asyncio/runners.py:118)", "event loop and sockets"),
    ],
)
def test_a_sample_belongs_to_the_innermost_part(stack: str, part: str) -> None:
    assert part_of(stack.split(";")) == part


def test_shares_are_of_all_samples() -> None:
    lines = ["a (controlplane/state/state.py:1) 3", "b (controlplane/store/sqlite.py:2) 1"]
    assert shares(lines) == {"state": 0.75, "journal": 0.25}
    assert shares([]) == {}


def exposition(*counts: int) -> str:
    bounds = ("0.05", "0.1", "0.3", "+Inf")
    name = "homeport_event_loop_delay_seconds"
    return "\n".join(f'{name}_bucket{{le="{le}"}} {count}.0' for le, count in zip(bounds, counts, strict=True))


def test_stalls_are_counted_from_one_reading_to_the_next() -> None:
    before = read_delays(exposition(10, 11, 12, 12))
    assert stalls_since(before, read_delays(exposition(20, 21, 25, 25))) == {
        "longest_delay_ms_up_to": 300,
        "stalls_over_100_ms": 3,
    }
    assert stalls_since(before, read_delays(exposition(20, 21, 22, 22))) == {
        "longest_delay_ms_up_to": 50,
        "stalls_over_100_ms": 0,
    }
    assert stalls_since(before, read_delays(exposition(20, 21, 22, 23)))["longest_delay_ms_up_to"] is None


def test_percentiles() -> None:
    values = [float(number) for number in range(1, 201)]
    assert (percentile(values, 50), percentile(values, 99)) == (100.0, 198.0)
    assert percentile([7.0], 99) == 7.0


# ---------------------------------------------------------------- what simulated hosts do


def assignment(name: str = "app", desired: DesiredStatus = DesiredStatus.RUNNING) -> Assignment:
    container = ContainerSpec(name=name, image="busybox", container_arn="c")
    spec = TaskSpec(task_arn="arn", cluster="default", family="web", revision=1, containers=(container,))
    return Assignment(task_id=TaskId(name), desired=desired, spec=spec)


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def workload(tally: Tally) -> SimulatedWorkload:
    return SimulatedWorkload(HostFacts(hostname="h", agent_version="0"), tally)


async def reported(workload: SimulatedWorkload, revision: int, *put: Assignment) -> list[tuple[TaskStatus, int]]:
    await workload.assign(Assignments(revision=revision, base=None if revision == 1 else revision - 1, put=put))
    async with asyncio.timeout(1):
        return [(report.status, report.seq) for report in await workload.next_reports()]


async def test_a_simulated_host_runs_and_stops_what_it_is_told(workload: SimulatedWorkload, tally: Tally) -> None:
    assert await reported(workload, 1, assignment()) == [(TaskStatus.RUNNING, 1)]
    assert await reported(workload, 2, assignment(desired=DesiredStatus.STOPPED)) == [(TaskStatus.STOPPED, 2)]
    assert tally.tasks == {"app RUNNING": 1, "app STOPPED": 1}


async def test_a_task_that_is_only_prepared_waits_and_one_of_a_probe_exits(workload: SimulatedWorkload) -> None:
    prepared = assignment("app", DesiredStatus.PENDING)
    assert await reported(workload, 1, prepared, assignment(EPHEMERAL)) == [
        (TaskStatus.PENDING, 1),
        (TaskStatus.STOPPED, 1),
    ]
    assert await reported(workload, 2, prepared, assignment("app")) == [(TaskStatus.RUNNING, 2)]


async def test_what_is_not_acknowledged_is_reported_again_in_the_next_session(workload: SimulatedWorkload) -> None:
    assert await reported(workload, 1, assignment()) == [(TaskStatus.RUNNING, 1)]
    workload.session_began()
    assert workload.revision == -1
    assert [report.seq for report in await workload.next_reports()] == [1]
    await workload.acknowledged({TaskId("app"): 1})
    workload.session_began()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(workload.next_reports(), 0.01)


async def test_a_gap_asks_for_a_complete_set(workload: SimulatedWorkload) -> None:
    await workload.assign(Assignments(revision=7, base=6))
    assert workload.revision == -1


async def test_a_host_is_heard_out_once_it_is_acknowledged_that_it_has_said_all(
    workload: SimulatedWorkload, tally: Tally
) -> None:
    workload.connected(True)
    workload.session_began()
    workload.contact_made(workload.contact_begins())
    assert (tally.sessions, tally.heard_out) == (1, 0)
    await workload.assign(Assignments(revision=1))
    await workload.caught_up()
    workload.contact_made(workload.contact_begins())
    assert tally.heard_out == 1
    workload.connected(False)
    assert (tally.sessions, tally.heard_out) == (0, 0)
