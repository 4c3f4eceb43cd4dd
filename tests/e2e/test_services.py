"""Services on one real Engine through the stock boto3 client: created, healed, rolled, scaled, deleted."""

import pytest

from tests.e2e.harness import Installation, eventually
from tests.e2e.services import described, events, live_tasks, steady, web

pytestmark = pytest.mark.e2e


def test_a_service_lives_heals_rolls_scales_and_goes(homeport: Installation, busybox: str) -> None:
    ecs = homeport.ecs
    ecs.create_service(serviceName="web", taskDefinition=homeport.register("web", web(busybox, "one")), desiredCount=3)
    ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig={"Delay": 1, "MaxAttempts": 40})
    service = steady(homeport, "web")
    assert service["runningCount"] == 3
    assert "(service web) has reached a steady state." in events(homeport, "web")
    dead = live_tasks(homeport, "web")[0]
    homeport.docker("kill", dead["containers"][0]["runtimeId"])
    homeport.wait(dead["taskArn"], "STOPPED")
    eventually(lambda: len(live_tasks(homeport, "web")) == 3)
    steady(homeport, "web")
    old = {task["taskArn"] for task in live_tasks(homeport, "web")}
    ecs.update_service(service="web", taskDefinition=homeport.register("web", web(busybox, "two")))
    steady(homeport, "web")
    new = {task["taskArn"] for task in live_tasks(homeport, "web")}
    assert not new & old
    assert len(new) == 3
    ecs.update_service(service="web", desiredCount=1)
    steady(homeport, "web")
    eventually(lambda: len(homeport.containers("status=running")) == 1)
    ecs.delete_service(service="web", force=True)
    ecs.get_waiter("services_inactive").wait(services=["web"], WaiterConfig={"Delay": 1, "MaxAttempts": 40})
    eventually(lambda: not homeport.containers("status=running"))
    assert described(homeport, "web")["status"] == "INACTIVE"
