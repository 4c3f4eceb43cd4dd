"""The users of a simulated cluster: they carry out requests as SDKs do, and keep a ledger of what came of them.

A request that isn't answered is sent again, the same document with the same clientToken. It may have been carried out
all the same, more than once where ECS has no token for it, or may yet be.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from tests.simulation.plan import Act
from tests.simulation.workload import REFERENCES

__all__ = ["Ask", "Clients", "Cluster", "Outcome", "Refused", "Unanswered"]

#: As botocore's standard retries: attempts in all, and the longest wait between two of them, in seconds.
_ATTEMPTS: Final = 3
_MAX_BACKOFF_S: Final = 20.0

Document = dict[str, Any]


class Refused(Exception):
    """The API answered with an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Unanswered(Exception):
    """The network or the control plane lost the request or its answer: it may have been carried out, or yet be."""


class Cluster(Protocol):
    """What clients can see of the world."""

    async def call(self, operation: str, document: Document, *, service: str = "ecs") -> Document:
        """Send one request and return its answer. Raises Refused or Unanswered."""
        ...

    def instance_arn(self, machine: str) -> str | None:
        """Return the ARN of the container instance that a machine is registered as; None before it has joined."""
        ...


class Outcome(StrEnum):
    """What has become of a request."""

    OPEN = "open"
    ANSWERED = "answered"
    REFUSED = "refused"
    UNANSWERED = "unanswered"


@dataclass
class Ask:
    """One request in the ledger. `began` and `ended` order requests: a number drawn from one counter."""

    operation: str
    document: Document
    began: int
    ended: int | None = None
    outcome: Outcome = Outcome.OPEN
    attempts: int = 0
    answer: Document | None = None
    refusal: Refused | None = None

    @property
    def certain(self) -> bool:
        """Whether it has been carried out exactly once, and can't be again: its only attempt was answered."""
        return self.outcome is Outcome.ANSWERED and self.attempts == 1

    def before(self, other: "Ask") -> bool:
        """Whether this one had been answered for good when the other began."""
        return self.ended is not None and self.certain and self.ended < other.began


@dataclass
class Clients:
    """See the module. `told` hears of each request that is over."""

    cluster: Cluster
    chance: random.Random
    told: Callable[[Ask], None]
    ledger: list[Ask] = field(default_factory=list)
    #: ARNs of tasks that answers have named, in that order.
    tasks: list[str] = field(default_factory=list)
    _moments: int = 0

    async def carry_out(self, act: Act) -> Ask | None:
        """Carry out one request, and return its entry; None if it refers to what isn't there.

        Cancelled, its entry stays open: nobody knows what has become of it.
        """
        document = await self._resolved(act.arguments)
        return None if document is None else await self.ask(act.subject, document)

    async def ask(self, operation: str, document: Document) -> Ask:
        """Send a request until it is answered or refused, or the attempts are used up. Return its entry."""
        ask = Ask(operation, document, began=self._moment())
        self.ledger.append(ask)
        while ask.outcome is Outcome.OPEN:
            ask.attempts += 1
            try:
                ask.answer = await self.cluster.call(operation, document)
                self._learn(ask.answer)
                ask.outcome = Outcome.ANSWERED
            except Refused as refusal:
                ask.refusal, ask.outcome = refusal, Outcome.REFUSED
            except Unanswered:
                if ask.attempts == _ATTEMPTS:
                    ask.outcome = Outcome.UNANSWERED
                else:
                    await asyncio.sleep(min(_MAX_BACKOFF_S, self.chance.random() * 2**ask.attempts))
        ask.ended = self._moment()
        self.told(ask)
        return ask

    def _moment(self) -> int:
        self._moments += 1
        return self._moments

    def _learn(self, answer: Document) -> None:
        """Remember the tasks that an answer names."""
        for arn in [task["taskArn"] for task in answer.get("tasks", ())] + list(answer.get("taskArns", ())):
            if arn not in self.tasks:
                self.tasks.append(arn)

    # ------------------------------------------------------------ references

    async def _resolved(self, value: Any) -> Any:
        """Return a document with its references replaced; None if one of them refers to nothing."""
        if isinstance(value, list):
            found = [await self._resolved(item) for item in value]
            return None if None in found else found
        if not isinstance(value, dict):
            return value
        if len(value) == 1 and next(iter(value)) in REFERENCES:
            return await self._referent(*next(iter(value.items())))
        members = {name: await self._resolved(member) for name, member in value.items()}
        return None if None in members.values() else members

    async def _referent(self, kind: str, name: Any) -> str | None:
        if kind == "$task":
            return self.tasks[name % len(self.tasks)] if self.tasks else None
        if kind == "$host":
            return self.cluster.instance_arn(name)
        listed = await self.ask("ListServiceDeployments", {"service": name})
        deployments = (listed.answer or {}).get("serviceDeployments") or ()
        return deployments[0]["serviceDeploymentArn"] if deployments else None
