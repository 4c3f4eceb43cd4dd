"""The beginning of a session: a fresh nonce, and the host's proof that it holds the key it registered with."""

import asyncio
import base64
import binascii
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from controlplane.context import Context
from controlplane.fleet.registration import understands
from controlplane.fleet.wire import Wire
from homeport.errors import HomeportError, ProtocolError
from homeport.protocol import PROTOCOL_VERSION, Challenge, Goodbye, Hello, signed_hello

__all__ = ["SessionRefused", "greet"]

#: Seconds a peer has from connecting to proving itself.
HELLO_TIMEOUT_S: Final = 10.0
_NONCE_BYTES: Final = 32


class SessionRefused(HomeportError):
    """A peer gets no session; `goodbye` is what it is told."""

    def __init__(self, goodbye: Goodbye) -> None:
        super().__init__(goodbye.reason)
        self.goodbye = goodbye


async def greet(context: Context, wire: Wire[Any]) -> Hello:
    """Challenge the peer and return its proven Hello. The nonce is new each time, so an old Hello proves nothing.

    Raises SessionRefused, PeerGone, ProtocolError, TimeoutError, JournalError. Only a host that proves the key of a
    deregistered instance is told to stop for good: a control plane that merely doesn't know a host must not stop its
    tasks.
    """
    nonce = base64.b64encode(context.random.getrandbits(_NONCE_BYTES * 8).to_bytes(_NONCE_BYTES, "big")).decode()
    await wire.send(Challenge(nonce=nonce))
    async with asyncio.timeout(HELLO_TIMEOUT_S):
        hello = await wire.receive()
    if not isinstance(hello, Hello):
        raise ProtocolError(f"expected Hello, got {type(hello).__name__}")
    if not understands(hello.protocol_version):
        raise SessionRefused(
            Goodbye(
                reason=f"the agent speaks protocol version {hello.protocol_version}, this control plane version "
                f"{PROTOCOL_VERSION}: install a homeport-agent of the control plane's release",
                retry_after_s=60,
            )
        )
    instance = context.state.instances.get(hello.instance_id)
    if instance is None:
        raise SessionRefused(
            Goodbye(
                reason=f"this control plane does not know the container instance {hello.instance_id[:64]}: "
                "check the server's address, or join again with a new activation",
                retry_after_s=60,
            )
        )
    if not _proves(hello, nonce, instance.public_key):
        raise SessionRefused(
            Goodbye(
                reason=f"the signature is not that of the container instance {instance.id}: join again with a new "
                "activation if the host's identity was lost",
                retry_after_s=60,
            )
        )
    if instance.status == "INACTIVE":
        # For good is told only what is so for good: a deregistration that can't be kept never was.
        await context.state.durable()
        reason = f"the container instance was deregistered{instance.status_reason and ': ' + instance.status_reason}"
        raise SessionRefused(Goodbye(reason=reason, final=True))
    return hello


def _proves(hello: Hello, nonce: str, public_key: str) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key))
        key.verify(base64.b64decode(hello.signature, validate=True), signed_hello(nonce, hello.instance_id))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
