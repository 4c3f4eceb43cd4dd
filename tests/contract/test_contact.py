"""Which contact a host may count on: what it sent and the control plane has answered, and by when it was sent."""

from pathlib import Path

from tests.contract.test_fleet_session import FACTS, joined, uplink
from tests.fakes.fleet import eventually, serve_fleet
from tests.fakes.tasks import background
from tests.fakes.workload import FakeWorkload


async def test_an_answered_hello_is_the_first_contact_and_comes_before_assignments(tmp_path: Path) -> None:
    async with serve_fleet(heartbeat_s=3600.0) as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: workload.taken)
        assert workload.contacts_at_first_set[0] == 1.0


async def test_each_acknowledged_heartbeat_counts_from_when_it_was_sent(tmp_path: Path) -> None:
    async with serve_fleet(heartbeat_s=0.02) as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: len(workload.contacts) >= 6)
            assert workload.contacts == [float(number) for number in range(1, len(workload.contacts) + 1)]
            assert workload.stamps - len(workload.contacts) <= 1


async def test_what_is_not_acknowledged_does_not_count(tmp_path: Path) -> None:
    async with serve_fleet(heartbeat_s=5.0) as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        workload.wants_heartbeats_within_s = 0.02
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: len(workload.contacts) >= 3)
            server.listen(on=False)
            sent = workload.stamps
            await eventually(lambda: workload.stamps > sent + 5)
            assert max(workload.contacts) <= sent
            server.listen(on=True)
            await eventually(lambda: max(workload.contacts) > sent + 5)


async def test_a_host_that_must_be_heard_often_sends_more_heartbeats_than_it_is_told_to(tmp_path: Path) -> None:
    async with serve_fleet(heartbeat_s=3600.0) as server:
        identity = await joined(server, tmp_path)
        workload = FakeWorkload(FACTS)
        workload.wants_heartbeats_within_s = 0.01
        async with background(uplink(identity, workload).run()):
            await eventually(lambda: len(workload.contacts) >= 10)
            assert server.hub.session_count == 1
