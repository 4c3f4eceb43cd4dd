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


def test_a_pipeline_that_deploys_twice_within_seconds_loses_nothing_that_serves(
    homeport: Installation, busybox: str
) -> None:
    ecs = homeport.ecs
    breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}
    ecs.create_service(
        serviceName="web",
        taskDefinition=homeport.register("web", web(busybox, "one")),
        desiredCount=2,
        deploymentConfiguration=breaker,
    )
    # Content as soon as both run: long before they count as healthy.
    ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig={"Delay": 1, "MaxAttempts": 40})
    first = set(homeport.containers("status=running"))
    broken = {**web(busybox, "two"), "image": "127.0.0.1:9/none:1"}
    ecs.update_service(service="web", taskDefinition=homeport.register("web", broken))
    service = steady(homeport, "web")
    assert service["taskDefinition"].endswith("/web:1")
    assert set(homeport.containers("status=running")) == first
    ecs.delete_service(service="web", force=True)


def test_a_task_that_gets_sick_is_replaced_though_it_holds_the_only_port(homeport: Installation, busybox: str) -> None:
    ecs = homeport.ecs
    check = {"command": ["CMD-SHELL", "test -f /www/index.html"], "interval": 5, "retries": 1, "timeout": 2}
    fixed = web(busybox, "one", portMappings=[{"containerPort": 8080, "hostPort": 18081}], healthCheck=check)
    ecs.create_service(serviceName="web", taskDefinition=homeport.register("web", fixed), desiredCount=1)
    steady(homeport, "web")
    (sick,) = live_tasks(homeport, "web")
    homeport.docker("exec", sick["containers"][0]["runtimeId"], "rm", "/www/index.html")
    stopped = homeport.wait(sick["taskArn"], "STOPPED", within_s=60)
    assert stopped["stoppedReason"] == "Task failed container health checks"
    eventually(lambda: [task["healthStatus"] for task in live_tasks(homeport, "web")] == ["HEALTHY"], within_s=60)
    ecs.delete_service(service="web", force=True)
