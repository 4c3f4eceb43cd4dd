"""What the control plane keeps to bring events to targets of rules.

ConnectionRecord      how to prove oneself to an HTTP endpoint: EventBridge's connection
ApiDestinationRecord  an HTTP endpoint, with its connection
DeliveryRecord        how far a rule's target has got in the stream of events, and how it goes
"""

from typing import ClassVar

import msgspec

from controlplane.state.records import Record

__all__ = ["ApiDestinationRecord", "ConnectionRecord", "DeliveryRecord", "HttpParameter"]


class HttpParameter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A header, query parameter or member of the body that a connection adds. A secret's value is never shown."""

    #: header, query or body.
    place: str
    key: str
    value: str
    secret: bool = False

    def __repr__(self) -> str:
        """Without the value: it must not get into a log."""
        return f"HttpParameter({self.place} {self.key})"


class ConnectionRecord(Record, frozen=True):
    """A connection. Times are epoch seconds."""

    kind: ClassVar[str] = "connection"

    name: str
    #: UUID at the end of its ARN.
    id: str
    created_at: float
    #: API_KEY or BASIC.
    authorization: str
    #: The API key's header, or the user name.
    user: str
    #: The API key's value, or the password. Never shown.
    secret: str
    modified_at: float
    #: When its credentials were given last.
    authorized_at: float
    description: str = ""
    parameters: tuple[HttpParameter, ...] = ()

    def __repr__(self) -> str:
        """Without secrets: they must not get into a log."""
        return f"ConnectionRecord({self.name} {self.authorization})"

    @property
    def key(self) -> str:
        """See Record."""
        return self.name


class ApiDestinationRecord(Record, frozen=True):
    """An API destination. Times are epoch seconds."""

    kind: ClassVar[str] = "api-destination"

    name: str
    #: UUID at the end of its ARN.
    id: str
    created_at: float
    modified_at: float
    #: The connection's name and id. Another one by the same name doesn't take its place.
    connection: str
    connection_id: str
    #: URL; each `*` in it stands for a path parameter.
    endpoint: str
    method: str
    #: Requests a second, at most.
    rate: int = 300
    description: str = ""

    @property
    def key(self) -> str:
        """See Record."""
        return self.name


class DeliveryRecord(Record, frozen=True):
    """Where a target stands. What was delivered behind `cursor` may be delivered again after a crash."""

    kind: ClassVar[str] = "event-delivery"

    rule: str
    target_id: str
    #: The number of the last event that is done with: delivered, given up, or not for this target.
    cursor: int
    #: The revision in which the target was put: what a courier of an earlier one knows no longer counts.
    generation: int = 0
    delivered: int = 0
    #: Events that were given up, or had left the stream before their turn came.
    dropped: int = 0
    last_delivered_at: float | None = None
    last_dropped_at: float | None = None
    drop_reason: str = ""
    # The event that is tried again, if one is:
    event_at: float | None = None
    attempts: int = 0
    #: When the last attempt failed; None in records of versions that didn't keep it.
    tried_at: float | None = None
    retry_at: float | None = None
    #: Why the last attempt failed.
    problem: str = ""
    #: Why nothing is delivered until the target is put anew, or its rule enabled; "" if it is.
    disabled: str = ""

    @property
    def key(self) -> str:
        """See Record."""
        return f"{self.rule}/{self.target_id}"
