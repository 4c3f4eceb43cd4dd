"""What clients asked for and were told: every request of a run, with how it ended."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Ledger", "Outcome", "Request"]


class Outcome(StrEnum):
    """How a request ended, its repetitions included."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  #: with a reason
    UNANSWERED = "unanswered"  #: the client gave up; nobody knows whether it was carried out


@dataclass(slots=True, kw_only=True)
class Request:
    """One request. Times are in seconds of the monotonic clock."""

    operation: str
    #: Names it, among all of the run: also its clientToken, where the operation has one.
    token: str
    #: What the client remembers for the judge, beside what it sent.
    meant: dict[str, Any] = field(default_factory=dict)
    sent: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0
    ended_at: float = 0.0
    outcome: Outcome = Outcome.UNANSWERED
    #: ARNs of what an accepted request made, or the error that refused it.
    made: Sequence[str] = ()
    reason: str = ""
    attempts: int = 0
    #: When the last attempt ended that was never answered, and so may be carried out, late; 0.0: there is none.
    unheard_at: float = 0.0


class Ledger:
    """All requests, in the order in which they were begun. Written by many threads."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._lock = threading.Lock()
        #: Answers that no client should ever get (HTTP 500): operation and message.
        self.server_errors: list[str] = []

    def enter(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    def requests(self, *operations: str) -> Iterator[Request]:
        """Yield those of these operations (all, without any)."""
        with self._lock:
            known = tuple(self._requests)
        return (request for request in known if not operations or request.operation in operations)

    def outcomes(self) -> dict[str, Counter[Outcome]]:
        """Count outcomes by operation."""
        counts: dict[str, Counter[Outcome]] = {}
        for request in self.requests():
            counts.setdefault(request.operation, Counter())[request.outcome] += 1
        return counts
