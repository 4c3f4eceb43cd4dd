"""Activations and registration: who may join, as what, and what a refused operator is told."""

import base64
import re

import pytest
from msgspec.structs import replace

from controlplane.context import Context
from controlplane.fleet.activations import check_activation, new_activation
from controlplane.fleet.registration import RegistrationRefused, register
from controlplane.state.records import ActivationRecord, ClusterRecord, InstanceRecord
from homeport.protocol import PROTOCOL_VERSION, HostFacts, Registration
from homeport.spec import Resources
from tests.fakes.clock import ManualClock
from tests.fakes.fleet import a_context

NOW = 1_800_000_000.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def context(clock: ManualClock) -> Context:
    return a_context(clock=clock)


def activation(context: Context, *, limit: int = 1, cluster: str = "") -> tuple[ActivationRecord, str]:
    return new_activation(
        context,
        description="two racks",
        registration_limit=limit,
        expires_at=NOW + 100,
        tags={"rack": "7"},
        cluster=cluster,
    )


def asks(made: tuple[ActivationRecord, str], *, key: int = 1, **more: object) -> Registration:
    registration = Registration(
        activation_id=made[0].id,
        activation_code=made[1],
        public_key=base64.b64encode(bytes([key]) * 32).decode(),
        facts=HostFacts(hostname="host-1", agent_version="1", resources=Resources(cpu_units=1024, memory_mib=512)),
    )
    return replace(registration, **more)


def refusal(context: Context, registration: Registration) -> RegistrationRefused:
    revision = context.state.revision
    with pytest.raises(RegistrationRefused) as caught:
        register(context, registration)
    assert context.state.revision == revision
    assert caught.value.message.endswith((".", "hosts."))
    return caught.value


def instances(context: Context) -> list[InstanceRecord]:
    return list(context.state.instances)


def test_a_code_has_120_bits_and_is_not_kept(context: Context) -> None:
    record, code = activation(context)
    assert re.fullmatch(r"[A-Z2-7]{24}", code)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", record.id)
    assert code not in str(record)
    assert context.state.activations.get(record.id) == record
    assert check_activation(context, record.id, code) == record
    assert check_activation(context, record.id, code[:-1]) is None
    assert check_activation(context, record.id, "") is None
    assert check_activation(context, "unknown", "") is None
    assert activation(context)[1] != code


def test_a_host_becomes_a_container_instance(context: Context) -> None:
    made = activation(context)
    registered = register(context, asks(made))
    (instance,) = instances(context)
    assert registered.instance_id == instance.id
    assert registered.instance_arn.endswith(f":container-instance/default/{instance.id}")
    assert (instance.status, instance.activation_id, instance.tags) == ("ACTIVE", made[0].id, {"rack": "7"})
    assert instance.registered_at == NOW
    counted = context.state.activations.get(made[0].id)
    assert counted is not None
    assert counted.registrations == 1


def test_the_same_key_is_the_same_instance_and_counts_once(context: Context, clock: ManualClock) -> None:
    made = activation(context)
    first = register(context, asks(made))
    revision = context.state.revision
    clock.time = NOW + 1000
    assert register(context, asks(made)) == first
    assert context.state.revision == revision
    assert refusal(context, asks(made, activation_code="wrong")).code == "InvalidActivation"


def test_registering_again_takes_over_new_facts(context: Context) -> None:
    made = activation(context)
    register(context, asks(made))
    register(context, asks(made, facts=HostFacts(hostname="renamed", agent_version="2")))
    (instance,) = instances(context)
    assert (instance.facts.hostname, instance.version) == ("renamed", 2)


def test_a_deregistered_key_becomes_a_new_instance(context: Context) -> None:
    made = activation(context, limit=2)
    first = register(context, asks(made))
    (instance,) = instances(context)
    with context.state.transaction() as transaction:
        transaction.put(replace(instance, status="INACTIVE"))
    second = register(context, asks(made))
    assert second.instance_id != first.instance_id
    assert len(instances(context)) == 2


def test_the_limit_and_the_expiry_are_kept_to(context: Context, clock: ManualClock) -> None:
    made = activation(context)
    register(context, asks(made))
    refused = refusal(context, asks(made, key=2))
    assert (refused.code, refused.status) == ("RegistrationLimitReached", 403)
    assert "limit of registrations (1)" in refused.message
    other = activation(context)
    clock.time = NOW + 100
    refused = refusal(context, asks(other, key=3))
    assert refused.code == "ActivationExpired"
    assert "2027-01-15 08:01:40 UTC" in refused.message


def test_clusters_are_those_of_the_activation_or_default(context: Context) -> None:
    with context.state.transaction() as transaction:
        transaction.put(ClusterRecord(name="lab", created_at=NOW))
    assert register(context, asks(activation(context, cluster="lab"), key=1)).cluster == "lab"
    assert register(context, asks(activation(context), key=2, cluster="lab")).cluster == "lab"
    assert register(context, asks(activation(context), key=3)).cluster == "default"
    assert refusal(context, asks(activation(context, cluster="lab"), key=4, cluster="default")).code == "WrongCluster"
    assert refusal(context, asks(activation(context), key=5, cluster="nowhere")).code == "ClusterNotFound"
    moved = refusal(context, asks(activation(context, cluster="lab"), key=3))
    assert (moved.code, moved.status) == ("AlreadyRegistered", 409)


@pytest.mark.parametrize("version", [0, -1, PROTOCOL_VERSION + 2])
def test_other_protocol_versions_are_refused(context: Context, version: int) -> None:
    assert refusal(context, asks(activation(context), protocol_version=version)).code == "UnsupportedProtocol"


def test_one_version_ahead_is_understood(context: Context) -> None:
    told = asks(activation(context), protocol_version=PROTOCOL_VERSION + 1)
    assert register(context, told).cluster == "default"


@pytest.mark.parametrize("key", ["", "not base64!", base64.b64encode(b"short").decode(), "\u00e9" * 44])
def test_keys_must_be_ed25519_keys(context: Context, key: str) -> None:
    assert refusal(context, asks(activation(context), public_key=key)).code == "InvalidKey"


def facts(**more: object) -> HostFacts:
    return replace(HostFacts(hostname="host-1", agent_version="1"), **more)


@pytest.mark.parametrize(
    ("told", "names"),
    [
        (facts(hostname=""), "hostname"),
        (facts(hostname="x" * 256), "hostname"),
        (facts(hostname="two\nlines"), "hostname"),
        (facts(metrics_address="x" * 256), "metrics_address"),
        (facts(disk_mib=-1), "disk_mib"),
        (facts(resources=Resources(cpu_units=2**31)), "cpu_units"),
        (facts(resources=Resources(ports=frozenset({("tcp", 0)}))), "port"),
        (facts(resources=Resources(ports=frozenset(("tcp", n) for n in range(1, 2000)))), "1024 ports"),
        (facts(attributes={"": "x"}), "attribute name"),
        (facts(attributes={"sp ace": "x"}), "attribute name"),
        (facts(attributes={"n" * 129: "x"}), "attribute name"),
        (facts(attributes={"rack": " x"}), "rack"),
        (facts(attributes={"rack": "x "}), "rack"),
        (facts(attributes={"rack": "x" * 129}), "rack"),
        (facts(attributes={"rack": "ä"}), "rack"),
        (facts(attributes={str(n): "x" for n in range(257)}), "256 attributes"),
    ],
)
def test_facts_that_cannot_be_used_are_named(context: Context, told: HostFacts, names: str) -> None:
    refused = refusal(context, asks(activation(context), facts=told))
    assert refused.code == "InvalidFacts"
    assert names in refused.message


def test_attributes_may_be_all_that_ecs_allows(context: Context) -> None:
    attributes = {"ecs.os-type": "linux", "a/b\\c_d": "v:1 @x/y\\z", "n" * 128: "v" * 128, "flag": "", "one": "x"}
    register(context, asks(activation(context), facts=facts(attributes=attributes)))
    assert instances(context)[0].facts.attributes == attributes
