"""What CreateService and UpdateService refuse, each in ECS's words where they are known, and that nothing is left."""

from typing import Any, Final

import pytest

from tests.contract.definitions import register
from tests.contract.refusals import refused
from tests.contract.server import ApiServer
from tests.contract.service_calls import create, update

DAEMON: Final[dict[str, Any]] = {"schedulingStrategy": "DAEMON", "desiredCount": None}
EXTERNAL: Final[dict[str, Any]] = {"deploymentController": {"type": "EXTERNAL"}, "taskDefinition": None}
SUBNETS: Final = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
FARGATE: Final = [{"capacityProvider": "FARGATE", "weight": 1}]
BREAKER: Final[dict[str, Any]] = {"enable": True, "rollback": False}
ZONES: Final = [{"type": "spread", "field": "attribute:ecs.availability-zone"}]

#: Members put over a right CreateService request -> what the refusal says.
INVALID: Final[list[tuple[dict[str, Any], str]]] = [
    ({"serviceName": ""}, "Identifiers can contain only letters, numbers, hyphens and underscores"),
    ({"serviceName": "a b"}, "Identifiers can contain only letters, numbers, hyphens and underscores"),
    ({"serviceName": "a" * 256}, "255 at most"),
    ({"clientToken": "t" * 37}, "idempotency token longer than 36."),
    ({"clientToken": "a b"}, "ASCII range 33 to 126"),
    ({"taskDefinition": None}, "TaskDefinition can not be blank."),
    ({"taskDefinition": ""}, "TaskDefinition can not be blank."),
    ({"desiredCount": None}, "DesiredCount is missing"),
    ({"desiredCount": -1}, "DesiredCount can not be lesser than 0"),
    ({"desiredCount": 100_001}, "desiredCount can be at most 100000"),
    (
        {"launchType": "EC2", "capacityProviderStrategy": FARGATE},
        "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
    ),
    ({"launchType": "MANAGED_INSTANCES"}, "launchType must be EC2, EXTERNAL or FARGATE"),
    ({"capacityProviderStrategy": [{"capacityProvider": "mine"}]}, "not associated with the cluster"),
    ({"networkConfiguration": SUBNETS}, "Network Configuration is not valid for the given networkMode"),
    ({"healthCheckGracePeriodSeconds": -1}, "healthCheckGracePeriodSeconds must be between 0 and"),
    ({"placementConstraints": [{"type": "distinctInstance"}] * 11}, "at most 10 placement constraints"),
    ({"placementConstraints": [{"type": "memberOf", "expression": "rack =="}]}, "Invalid expression"),
    ({"placementStrategy": [{"type": "random"}] * 6}, "at most 5 placement strategies"),
    ({"placementStrategy": [{"type": "binpack", "field": "gpu"}]}, "binpack's field must be cpu or memory"),
    ({"tags": [{"key": "aws:x", "value": ""}]}, "reserved"),
    # What Homeport can't do.
    ({"loadBalancers": [{"targetGroupArn": "arn:t", "containerName": "web", "containerPort": 80}]}, "loadBalancers"),
    ({"serviceRegistries": [{"registryArn": "arn:r"}]}, "serviceRegistries"),
    ({"serviceConnectConfiguration": {"enabled": True}}, "serviceConnectConfiguration"),
    ({"volumeConfigurations": [{"name": "v"}]}, "volumeConfigurations"),
    (
        {"vpcLatticeConfigurations": [{"roleArn": "r", "targetGroupArn": "t", "portName": "p"}]},
        "vpcLatticeConfigurations",
    ),
    ({"deploymentController": {"type": "CODE_DEPLOY"}}, "CODE_DEPLOY"),
    # DAEMON.
    ({**DAEMON, "desiredCount": 1}, "The daemon scheduling strategy does not support a desired count for services."),
    (
        {**DAEMON, "placementStrategy": [{"type": "random"}]},
        "The daemon scheduling strategy does not support placement strategies. Remove the placement strategy",
    ),
    ({**DAEMON, "placementConstraints": [{"type": "distinctInstance"}]}, "distinctInstance"),
    ({**DAEMON, "launchType": "FARGATE"}, "The daemon scheduling strategy does not support the FARGATE launch type."),
    ({**DAEMON, "capacityProviderStrategy": FARGATE}, "using the DAEMON scheduling strategy."),
    ({**DAEMON, **EXTERNAL}, "DAEMON scheduling strategy is not supported with the EXTERNAL deployment controller"),
    # EXTERNAL.
    ({**EXTERNAL, "taskDefinition": "web"}, "TaskDefinition must be blank."),
    ({**EXTERNAL, "launchType": "EC2"}, "LaunchType must be blank."),
    ({**EXTERNAL, "networkConfiguration": SUBNETS}, "NetworkConfiguration must be null."),
    ({**EXTERNAL, "platformVersion": "LATEST"}, "PlatformVersion must be blank."),
    ({**EXTERNAL, "capacityProviderStrategy": FARGATE}, "CapacityProviderStrategy must be blank."),
    (
        {**EXTERNAL, "deploymentConfiguration": {"deploymentCircuitBreaker": BREAKER}},
        "The deployment circuit breaker can only be used for services using the rolling update (ECS) deployment type.",
    ),
    (
        {
            **EXTERNAL,
            "deploymentConfiguration": {
                "lifecycleHooks": [{"targetType": "PAUSE", "lifecycleStages": ["POST_SCALE_UP"]}]
            },
        },
        "lifecycleHooks can only be used with the ECS deployment controller",
    ),
    (
        {
            **EXTERNAL,
            "deploymentConfiguration": {
                "earlySuccessCriteria": {
                    "enable": True,
                    "healthyPercent": 100,
                    "sourceServiceRevisionCleanup": "BLOCKING",
                }
            },
        },
        "earlySuccessCriteria can only be used with the ECS deployment controller",
    ),
    # Zones.
    ({**DAEMON, "availabilityZoneRebalancing": "ENABLED"}, "the DAEMON scheduling strategy"),
    ({**EXTERNAL, "availabilityZoneRebalancing": "ENABLED"}, "the EXTERNAL deployment controller"),
    (
        {
            "availabilityZoneRebalancing": "ENABLED",
            "deploymentConfiguration": {"maximumPercent": 100, "minimumHealthyPercent": 0},
        },
        "a maximumPercent of 100 or less",
    ),
    (
        {"availabilityZoneRebalancing": "ENABLED", "placementStrategy": [{"type": "random"}, *ZONES]},
        "doesn't begin with spread by attribute:ecs.availability-zone",
    ),
]

PAUSE: Final = {"targetType": "PAUSE", "lifecycleStages": ["POST_SCALE_UP"]}
#: deploymentConfiguration -> what the refusal says.
CONFIGURATIONS: Final[list[tuple[dict[str, Any], str]]] = [
    (
        {"maximumPercent": 100, "minimumHealthyPercent": 100},
        "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments.",
    ),
    ({"maximumPercent": 100}, "cannot be 100"),
    ({"maximumPercent": 99}, "maximumPercent must be between 100 and"),
    ({"maximumPercent": 1_000_000}, "maximumPercent must be between 100 and"),
    ({"minimumHealthyPercent": -1}, "minimumHealthyPercent must be between 0 and 100"),
    ({"minimumHealthyPercent": 101}, "minimumHealthyPercent must be between 0 and 100"),
    ({"strategy": "BLUE_GREEN"}, "strategy BLUE_GREEN isn't supported"),
    ({"strategy": "LINEAR"}, "strategy LINEAR isn't supported"),
    ({"strategy": "CANARY"}, "strategy CANARY isn't supported"),
    ({"linearConfiguration": {"stepPercent": 10.0}}, "linearConfiguration isn't supported"),
    ({"canaryConfiguration": {"canaryPercent": 10.0}}, "canaryConfiguration isn't supported"),
    ({"bakeTimeInMinutes": 5}, "bakeTimeInMinutes isn't supported with the strategy ROLLING"),
    ({"alarms": {"alarmNames": ["a"], "rollback": True, "enable": True}}, "alarms isn't supported"),
    (
        {"deploymentCircuitBreaker": {**BREAKER, "thresholdConfiguration": {"type": "COUNT", "value": 0}}},
        "thresholdConfiguration.value must be at least 1, but was 0",
    ),
    (
        {"deploymentCircuitBreaker": {**BREAKER, "thresholdConfiguration": {"type": "BOUNDED_PERCENT", "value": 101}}},
        "must be between 1 and 100 for BOUNDED_PERCENT",
    ),
    ({"earlySuccessCriteria": {"enable": True}}, "healthyPercent must be given"),
    (
        {"minimumHealthyPercent": 50, "earlySuccessCriteria": {"enable": True, "healthyPercent": 60}},
        "sourceServiceRevisionCleanup must be given",
    ),
    (
        {
            "minimumHealthyPercent": 50,
            "earlySuccessCriteria": {
                "enable": True,
                "healthyPercent": 49,
                "sourceServiceRevisionCleanup": "BLOCKING",
            },
        },
        "healthyPercent must be at least minimumHealthyPercent, 50, but was 49",
    ),
    ({"lifecycleHooks": [{"hookTargetArn": "arn:l", "lifecycleStages": ["POST_SCALE_UP"]}]}, "AWS_LAMBDA"),
    ({"lifecycleHooks": [{**PAUSE, "hookTargetArn": "arn:l"}]}, "hookTargetArn isn't applicable for PAUSE hooks"),
    ({"lifecycleHooks": [{"targetType": "PAUSE"}]}, "lifecycleStages must be given"),
    (
        {"lifecycleHooks": [{**PAUSE, "lifecycleStages": ["TEST_TRAFFIC_SHIFT"]}]},
        "PAUSE hooks cannot be configured at the TEST_TRAFFIC_SHIFT stage",
    ),
]


@pytest.fixture(autouse=True)
def web(ecs: Any) -> str:
    return register(ecs)


@pytest.mark.parametrize(("members", "words"), INVALID)
def test_what_cannot_be_is_refused(ecs: Any, server: ApiServer, members: dict[str, Any], words: str) -> None:
    with server.unchanged():
        code, message = refused(lambda: create(ecs, **members))
    assert code == "InvalidParameterException"
    assert words in message


@pytest.mark.parametrize(("configuration", "words"), CONFIGURATIONS)
def test_a_deployment_configuration_that_cannot_be_is_refused_at_creation_and_by_an_update(
    ecs: Any, server: ApiServer, configuration: dict[str, Any], words: str
) -> None:
    code, message = refused(lambda: create(ecs, deploymentConfiguration=configuration))
    assert (code, words in message) == ("InvalidParameterException", True), message
    create(ecs)
    with server.unchanged():
        code, message = refused(lambda: update(ecs, deploymentConfiguration=configuration))
    assert (code, words in message) == ("InvalidParameterException", True), message


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        (
            {"maximumPercent": 101},
            "The daemon scheduling strategy does not support values above 100 for maximumPercent on a deployment"
            " configuration. Change the maximumPercent value to 100, and try again",
        ),
        ({"maximumPercent": 50}, "maximumPercent must be between 100"),
        ({"minimumHealthyPercent": 100}, "cannot be 100"),
    ],
)
def test_a_daemon_has_bounds_of_its_own(ecs: Any, configuration: dict[str, Any], words: str) -> None:
    code, message = refused(lambda: create(ecs, **DAEMON, deploymentConfiguration=configuration))
    assert (code, words in message) == ("InvalidParameterException", True), message


def test_the_bounds_hold_between_what_an_update_says_and_what_it_leaves(ecs: Any) -> None:
    create(ecs, deploymentConfiguration={"maximumPercent": 100, "minimumHealthyPercent": 50})
    assert "cannot be 100" in refused(lambda: update(ecs, deploymentConfiguration={"minimumHealthyPercent": 100}))[1]
    wanted = "can't be used with a maximumPercent of 100 or less"
    assert wanted in refused(lambda: update(ecs, availabilityZoneRebalancing="ENABLED"))[1]


def test_every_refused_member_is_named_at_once(ecs: Any) -> None:
    members: dict[str, Any] = {
        "serviceRegistries": [{"registryArn": "arn:r"}],
        "volumeConfigurations": [{"name": "v"}],
        "deploymentController": {"type": "CODE_DEPLOY"},
    }
    _, message = refused(lambda: create(ecs, **members))
    for word in ("serviceRegistries", "volumeConfigurations", "CODE_DEPLOY"):
        assert word in message


# ---------------------------------------------------------------- task definitions


def test_a_task_definition_must_be_there_and_active(ecs: Any, web: str) -> None:
    assert refused(lambda: create(ecs, taskDefinition="nope")) == ("ClientException", "TaskDefinition not found.")
    ecs.deregister_task_definition(taskDefinition=web)
    assert refused(lambda: create(ecs, taskDefinition=web)) == ("ClientException", "TaskDefinition is inactive")
    assert refused(lambda: create(ecs, taskDefinition="web")) == ("ClientException", "TaskDefinition not found.")


def test_a_service_that_could_never_start_is_refused_at_once(ecs: Any, server: ApiServer) -> None:
    container = {"name": "web", "image": "busybox", "memory": 64, "links": ["db"]}
    register(ecs, family="linked", containerDefinitions=[container, {**container, "name": "db", "links": []}])
    register(ecs, family="vpc", networkMode="awsvpc")
    create(ecs)
    with server.unchanged():
        for family, member in (("linked", "links"), ("vpc", "networkMode awsvpc")):
            for call in (
                lambda family=family: create(ecs, serviceName="x", taskDefinition=family),
                lambda family=family: update(ecs, taskDefinition=family),
            ):
                code, message = refused(call)
                assert (code, member in message) == ("ClientException", True), message


def test_constraints_of_definition_and_service_count_together(ecs: Any) -> None:
    constraint = {"type": "memberOf", "expression": "attribute:rack == a"}
    register(ecs, family="placed", placementConstraints=[constraint] * 6)
    code, message = refused(lambda: create(ecs, taskDefinition="placed", placementConstraints=[constraint] * 5))
    assert (code, "at most 10" in message) == ("InvalidParameterException", True)
    assert create(ecs, taskDefinition="placed", placementConstraints=[constraint] * 4)["status"] == "ACTIVE"


@pytest.mark.parametrize("missing", [{"enable": True}, {"rollback": True}])
def test_members_that_the_model_requires_are_asked_for(server: ApiServer, missing: dict[str, Any]) -> None:
    ecs = server.client("ecs", parameter_validation=False)
    code, _ = refused(lambda: create(ecs, deploymentConfiguration={"deploymentCircuitBreaker": missing}))
    assert code == "InvalidParameterException"


# ---------------------------------------------------------------- updates


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"desiredCount": -1}, "Task count can not be lesser than 0"),
        ({"desiredCount": 100_001}, "desiredCount can be at most 100000"),
        ({"deploymentController": {"type": "EXTERNAL"}}, "deploymentController can't be changed from ECS to EXTERNAL"),
        ({"networkConfiguration": SUBNETS}, "Network Configuration is not valid for the given networkMode"),
        ({"placementStrategy": [{"type": "binpack", "field": "gpu"}]}, "binpack's field must be cpu or memory"),
        ({"placementConstraints": [{"type": "distinctInstance"}] * 11}, "at most 10 placement constraints"),
        ({"healthCheckGracePeriodSeconds": -1}, "healthCheckGracePeriodSeconds must be between 0 and"),
        ({"serviceConnectConfiguration": {"enabled": True}}, "serviceConnectConfiguration"),
        ({"loadBalancers": [{"targetGroupArn": "t"}]}, "loadBalancers"),
        (
            {"capacityProviderStrategy": FARGATE},
            "When switching from launch type to capacity provider strategy on an existing service, or making a change"
            " to a capacity provider strategy on a service that is already using one, you must force a new deployment.",
        ),
    ],
)
def test_what_an_update_cannot_change_is_refused(
    ecs: Any, server: ApiServer, members: dict[str, Any], words: str
) -> None:
    create(ecs)
    with server.unchanged():
        code, message = refused(lambda: update(ecs, **members))
    assert (code, words in message) == ("InvalidParameterException", True), message


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"desiredCount": 0}, "The daemon scheduling strategy does not support a desired count for services."),
        ({"placementStrategy": [{"type": "random"}]}, "does not support placement strategies"),
        ({"capacityProviderStrategy": FARGATE, "forceNewDeployment": True}, "using the DAEMON scheduling strategy."),
    ],
)
def test_a_daemon_stays_one(ecs: Any, members: dict[str, Any], words: str) -> None:
    create(ecs, **DAEMON)
    code, message = refused(lambda: update(ecs, **members))
    assert (code, words in message) == ("InvalidParameterException", True), message


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"taskDefinition": "web"}, "TaskDefinition must be blank."),
        ({"networkConfiguration": SUBNETS}, "NetworkConfiguration must be null."),
        ({"platformVersion": "LATEST"}, "PlatformVersion must be blank."),
        ({"forceNewDeployment": True}, "Cannot force a new deployment on services with an EXTERNAL"),
    ],
)
def test_an_external_service_takes_only_what_is_not_its_task_sets(
    ecs: Any, members: dict[str, Any], words: str
) -> None:
    create(ecs, **EXTERNAL)
    code, message = refused(lambda: update(ecs, **members))
    assert (code, words in message) == ("InvalidParameterException", True), message


def test_a_service_that_is_not_active_is_not_updated(ecs: Any) -> None:
    create(ecs)
    ecs.delete_service(service="web", force=True)
    assert refused(lambda: update(ecs, desiredCount=1)) == ("ServiceNotActiveException", "Service was not ACTIVE.")
