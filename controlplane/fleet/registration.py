"""Registration: a host with an activation becomes a container instance.

What always holds:
 - the same key registers the same instance, however often it is repeated, and is counted once: an agent whose answer
   got lost asks again, even if the activation is used up or has expired meanwhile;
 - a key whose instance was deregistered gets a new instance, as ECS has it;
 - every refusal has a code for programs and a sentence for the operator at the host's prompt.
"""

import base64
import binascii
from datetime import UTC, datetime
from typing import Final

from msgspec.structs import replace

from controlplane.context import Context
from controlplane.fleet.activations import check_activation
from controlplane.fleet.facts import FactsRefused, check_facts
from controlplane.state.records import ActivationRecord, InstanceRecord
from homeport.errors import HomeportError
from homeport.ids import InstanceId, new_hex_id
from homeport.protocol import PROTOCOL_VERSION, Registered, Registration

__all__ = ["RegistrationRefused", "register", "understands"]

DEFAULT_CLUSTER: Final = "default"


class RegistrationRefused(HomeportError):
    """A host may not register. `status`: the HTTP status; `code`: for programs; the text: for the operator."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def register(context: Context, registration: Registration) -> Registered:
    """Make the host a container instance, or find the one it is already. A command: one transaction.

    Raises RegistrationRefused. The caller awaits durability before it answers.
    """
    _check_request(registration)
    activation = check_activation(context, registration.activation_id, registration.activation_code)
    if activation is None:
        raise RegistrationRefused(
            "InvalidActivation",
            "The activation id or code is wrong, or the activation was deleted. Make a new one with "
            "`homeport add-node` or `aws ssm create-activation`.",
            status=403,
        )
    cluster = _cluster_to_join(context, activation, registration.cluster)
    known = _live_instance(context, registration.public_key)
    if known is not None:
        return _again(context, known, cluster, registration)
    _check_activation_is_open(context, activation)
    instance = InstanceRecord(
        id=InstanceId(new_hex_id(context.random)),
        cluster=cluster,
        public_key=registration.public_key,
        registered_at=context.clock.now(),
        facts=registration.facts,
        activation_id=activation.id,
        tags=activation.tags,
    )
    with context.state.transaction() as transaction:
        transaction.put(instance)
        transaction.put(replace(activation, registrations=activation.registrations + 1))
    return _answer(context, instance)


def understands(protocol_version: int) -> bool:
    """Tell whether an agent of this protocol version can be served: the same, or one version before or after."""
    return protocol_version >= 1 and abs(protocol_version - PROTOCOL_VERSION) <= 1


def _check_request(registration: Registration) -> None:
    if not understands(registration.protocol_version):
        raise RegistrationRefused(
            "UnsupportedProtocol",
            f"This agent speaks version {registration.protocol_version} of the agent protocol, this control plane "
            f"version {PROTOCOL_VERSION}. Install a homeport-agent of the control plane's release.",
        )
    try:
        key = base64.b64decode(registration.public_key, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise RegistrationRefused("InvalidKey", "public_key must be a raw Ed25519 public key of 32 bytes in base64.")
    try:
        check_facts(registration.facts)
    except FactsRefused as error:
        raise RegistrationRefused("InvalidFacts", f"The host's facts can't be used: {error}.") from error


def _cluster_to_join(context: Context, activation: ActivationRecord, asked: str) -> str:
    if asked and activation.cluster and asked != activation.cluster:
        raise RegistrationRefused(
            "WrongCluster",
            f"This activation is for the cluster {activation.cluster}, but the host asks to join {asked[:255]}. "
            "Leave the cluster out, or make an activation for the other cluster.",
        )
    name = asked or activation.cluster or DEFAULT_CLUSTER
    cluster = context.state.clusters.get(name)
    if cluster is None or cluster.status != "ACTIVE":
        raise RegistrationRefused(
            "ClusterNotFound",
            f"There is no active cluster {name[:255]}. Create it with `aws ecs create-cluster`, or join another.",
            status=404,
        )
    return name


def _live_instance(context: Context, public_key: str) -> InstanceRecord | None:
    instances = context.state.instances.where("public_key", public_key)
    return next((instance for instance in instances if instance.status != "INACTIVE"), None)


def _again(context: Context, known: InstanceRecord, cluster: str, registration: Registration) -> Registered:
    """Answer a host that is registered: only its facts may be news."""
    if (registration.cluster or cluster != DEFAULT_CLUSTER) and known.cluster != cluster:
        raise RegistrationRefused(
            "AlreadyRegistered",
            f"This host is already registered in the cluster {known.cluster}. To move it to {cluster}, deregister the "
            f"container instance {known.id} first.",
            status=409,
        )
    if known.facts != registration.facts:
        with context.state.transaction() as transaction:
            transaction.put(replace(known, facts=registration.facts, version=known.version + 1))
    return _answer(context, known)


def _check_activation_is_open(context: Context, activation: ActivationRecord) -> None:
    now = context.clock.now()
    if now >= activation.expires_at:
        when = datetime.fromtimestamp(activation.expires_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        raise RegistrationRefused(
            "ActivationExpired",
            f"The activation expired at {when}. Make a new one with `homeport add-node` or "
            "`aws ssm create-activation`.",
            status=403,
        )
    if activation.registrations >= activation.registration_limit:
        raise RegistrationRefused(
            "RegistrationLimitReached",
            f"The activation's limit of registrations ({activation.registration_limit}) is reached. Make a new one "
            "with `homeport add-node`, or `aws ssm create-activation --registration-limit N` for N hosts.",
            status=403,
        )


def _answer(context: Context, instance: InstanceRecord) -> Registered:
    return Registered(
        instance_id=instance.id,
        instance_arn=context.arns.container_instance(instance.cluster, instance.id),
        cluster=instance.cluster,
    )
