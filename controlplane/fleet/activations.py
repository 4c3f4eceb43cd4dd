"""Activations: what lets a host register. Made as `aws ssm create-activation` makes them, spent by `registration`.

A code has 120 random bits and is shown once; only its SHA-256 is kept. No slow hash is needed for a secret that long,
and a stolen journal doesn't let anyone register.
"""

import base64
import hashlib
import hmac
from typing import Final

from controlplane.context import Context
from controlplane.state.records import ActivationRecord
from homeport.ids import new_uuid

__all__ = ["CODE_BYTES", "check_activation", "new_activation"]

#: 120 bits: 24 characters of base32, without padding. The SSM model wants at least 20.
CODE_BYTES: Final = 15


def new_activation(
    context: Context,
    *,
    description: str = "",
    default_instance_name: str = "",
    iam_role: str = "",
    registration_limit: int = 1,
    expires_at: float,
    tags: dict[str, str] | None = None,
    cluster: str = "",
) -> tuple[ActivationRecord, str]:
    """Make an activation and put it into the state. Return it with its code, which is not kept.

    `expires_at`: epoch seconds. `cluster` "" lets its hosts join any cluster. The arguments are those of SSM's
    CreateActivation and are validated by its handler.
    """
    code = base64.b32encode(context.random.getrandbits(CODE_BYTES * 8).to_bytes(CODE_BYTES, "big")).decode()
    record = ActivationRecord(
        id=new_uuid(context.random),
        code_hash=_hash(code),
        created_at=context.clock.now(),
        expires_at=expires_at,
        registration_limit=registration_limit,
        cluster=cluster,
        iam_role=iam_role,
        description=description,
        default_instance_name=default_instance_name,
        tags=tags or {},
    )
    with context.state.transaction() as transaction:
        transaction.put(record)
    return record, code


def check_activation(context: Context, activation_id: str, code: str) -> ActivationRecord | None:
    """Return the activation if there is one with this id and its code is `code`, else None; in constant time.

    Says nothing of expiry and limit: those are for the registration to judge and to explain.
    """
    record = context.state.activations.get(activation_id)
    expected = record.code_hash if record is not None else _hash("")
    matches = hmac.compare_digest(_hash(code), expected)
    return record if matches else None


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()
