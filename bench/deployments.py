"""Deployments: seconds from UpdateService until the new revision is rolled out, or a broken one is rolled back."""

import time
from typing import Any, Final

from bench.common import Json, summary
from tests.e2e.harness import Installation, eventually

__all__ = ["deployments"]

_REPLICAS: Final = 3
_NAME: Final = "bench-deployments"
#: What is rolled out, and how it is broken. A task without a health check counts as healthy after 5 s of RUNNING.
_KINDS: Final[dict[str, dict[str, Any]]] = {
    "good": {},
    # Nothing listens there: the registry can't be reached, which another try might heal.
    "registry_unreachable": {"image": "127.0.0.1:9/none:1"},
    "no_such_entry_point": {"command": ["/no/such/program"]},
    "exits_at_once": {"command": ["sh", "-c", "exit 3"]},
    "never_healthy": {
        "healthCheck": {"command": ["CMD-SHELL", "false"], "interval": 5, "timeout": 2, "retries": 1, "startPeriod": 0}
    },
}


def deployments(homeport: Installation, image: str, rounds: int) -> Json:
    """Roll each kind out over a service of three, with the circuit breaker and rollback on."""
    good = {"name": "app", "image": image, "command": ["sleep", "600"], "memory": 16, "stopTimeout": 1}
    homeport.ecs.create_service(
        serviceName=_NAME,
        taskDefinition=homeport.register(_NAME, good),
        desiredCount=_REPLICAS,
        deploymentConfiguration={"deploymentCircuitBreaker": {"enable": True, "rollback": True}},
    )
    _ended(homeport)
    times: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for _ in range(rounds):
        for kind, broken in _KINDS.items():
            definition = homeport.register(_NAME, {**good, **broken})
            began = time.monotonic()
            homeport.ecs.update_service(service=_NAME, taskDefinition=definition, forceNewDeployment=True)
            _ended(homeport)
            times[kind].append(time.monotonic() - began)
    homeport.ecs.delete_service(service=_NAME, force=True)
    return {f"{kind}_s": summary(seconds) for kind, seconds in times.items()}


def _ended(homeport: Installation) -> None:
    """Wait until one deployment is left, and it is completed."""

    def ended() -> bool:
        (service,) = homeport.ecs.describe_services(services=[_NAME])["services"]
        (primary, *others) = service["deployments"]
        return not others and primary["rolloutState"] == "COMPLETED"

    eventually(ended, within_s=180)
