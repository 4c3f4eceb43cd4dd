"""How a host proves itself to the control plane, at the beginning of each connection."""

from collections.abc import Awaitable, Callable

from agent.identity import Identity
from homeport.errors import ProtocolError
from homeport.protocol import Challenge, Hello, HostFacts, Welcome

__all__ = ["greet"]


async def greet(
    receive: Callable[[], Awaitable[object]],
    send: Callable[[Hello], Awaitable[None]],
    identity: Identity,
    facts: HostFacts,
    *,
    challenged: Callable[[], None] = lambda: None,
) -> Welcome:
    """Answer the challenge and return the welcome. `challenged` is called just before the answer goes out.

    Raises ProtocolError if the peer says anything else, and whatever `receive` and `send` raise.
    """
    challenge = await receive()
    if not isinstance(challenge, Challenge):
        raise ProtocolError(f"expected Challenge, got {type(challenge).__name__}")
    challenged()
    signature = identity.sign_hello(challenge.nonce)
    await send(Hello(instance_id=identity.instance_id, signature=signature, facts=facts))
    welcome = await receive()
    if not isinstance(welcome, Welcome):
        raise ProtocolError(f"expected Welcome, got {type(welcome).__name__}")
    return welcome
