"""A host's assignment set, shown to a person: signed requests only."""

import aiohttp
import msgspec
from aiohttp import web

from controlplane.api.server import FrontDoor
from controlplane.fleet.assignments_route import assignments_routes
from controlplane.state.records import InstanceRecord
from homeport.ids import InstanceId
from homeport.protocol import Assignments, HostFacts
from tests.contract.server import ACCESS_KEY_ID, SECRET, sign
from tests.fakes.fleet import a_context, a_task


async def test_a_hosts_set_is_shown_to_those_with_a_key() -> None:
    context = a_context()
    host = InstanceId("a" * 32)
    facts = HostFacts(hostname="host-1", agent_version="1")
    with context.state.transaction() as transaction:
        transaction.put(InstanceRecord(id=host, cluster="default", public_key="k", registered_at=1.0, facts=facts))
        transaction.put(a_task("t1", host))
        transaction.put(a_task("t2", "b" * 32))
    door = FrontDoor(context, secret_of={ACCESS_KEY_ID: SECRET}.get)
    app = web.Application()
    app.add_routes(assignments_routes(context, door))
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}/fleet/v1/instances"
        async with aiohttp.ClientSession() as http:
            url = f"{base}/{host}/assignments"
            async with http.get(url) as response:
                assert 400 <= response.status < 500
                assert b"t1" not in await response.read()
            async with http.get(url, headers=sign(url, None, b"", service="homeport", method="GET")) as response:
                assert response.status == 200
                shown = msgspec.json.decode(await response.read(), type=Assignments)
            assert (shown.base, [assignment.task_id for assignment in shown.put]) == (None, ["t1"])
            url = f"{base}/{'c' * 32}/assignments"
            async with http.get(url, headers=sign(url, None, b"", service="homeport", method="GET")) as response:
                assert response.status == 404
                assert "There is no container instance" in await response.text()
    finally:
        await runner.cleanup()
