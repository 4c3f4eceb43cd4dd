"""Ranking: which of the open hosts is next under a chain of strategies.

Strategies are a chain: hosts are narrowed by the first, ties by the second, and so on; what still ties goes to the host
with the fewest tasks, then to the smallest id. A spread over an attribute counts the group's tasks among the hosts
that the strategies before it left, also those that can't take more, so that zones stay even when one fills up.

The hosts are kept in a tree, one level for each strategy that looks beyond the single host, and a heap at each leaf.
Adding a host does no more than file it; the order is made when somebody asks for the best.
"""

import heapq
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from msgspec.structs import replace

from controlplane.scheduling.model import Candidate, Demand, Strategy

__all__ = ["Host", "Key", "Ranking", "rank"]


class Host:
    """A candidate, and what this placement has put on it so far."""

    __slots__ = ("_copied", "candidate", "demand")

    def __init__(self, candidate: Candidate, demand: Demand) -> None:
        self.candidate = candidate
        self.demand = demand
        self._copied = False

    @property
    def group_tasks(self) -> int:
        """Tasks of the demand's group that should be running here."""
        return self.candidate.load.groups.get(self.demand.group, 0)

    def load_one_more(self) -> None:
        """Count one more task, on a copy: the state's own books are not touched."""
        if not self._copied:
            self.candidate = replace(self.candidate, load=self.candidate.load.copy())
            self._copied = True
        self.candidate.load.add(self.demand.resources, 1)
        self.candidate.load.add_to_group(self.demand.group, 1)

    def left(self, field: str) -> int:
        """Return what is left of "cpu" (units) or "memory" (MiB)."""
        total, held = self.candidate.instance.facts.resources, self.candidate.load
        return total.cpu_units - held.cpu_units if field == "cpu" else total.memory_mib - held.memory_mib


#: What hosts, and branches by their best host, are ordered by: the least first.
Key = tuple[Any, ...]


class Ranking(Protocol):
    """A set of hosts, some open (can take one more), that knows which of those is next."""

    def add(self, host: Host, *, is_open: bool) -> None:
        """File a host: a new one, or one that was taken out and has changed."""
        ...

    def best(self) -> Key | None:
        """Return what the next host is worth among others; None if no host is open."""
        ...

    def take(self) -> Host:
        """Take the next host out, with its tasks: whoever takes it adds it again, open or not."""
        ...


def rank(chain: Sequence[Strategy], source: random.Random) -> Ranking:
    """Make an empty ranking: branches while a strategy to come looks beyond the single host, then a leaf."""
    if chain and chain[0].type == "random":
        return _RandomLeaf(source)  # what follows has no ties left to decide
    if any(strategy.by_attribute or strategy.type == "random" for strategy in chain):
        return _Branch(chain, source)
    return _Leaf(chain)


class _Leaf:
    """Hosts ordered by what each is by itself. Only open ones are kept, each once."""

    def __init__(self, chain: Sequence[Strategy]) -> None:
        self._chain = chain
        self._heap: list[tuple[Key, Host]] = []
        self._new: list[tuple[Key, Host]] = []

    def add(self, host: Host, *, is_open: bool) -> None:
        if is_open:
            scores = [_score(strategy, host) for strategy in self._chain]
            self._new.append(((*scores, host.candidate.load.tasks, host.candidate.instance.id), host))

    def best(self) -> Key | None:
        if len(self._new) > len(self._heap):
            self._heap += self._new
            heapq.heapify(self._heap)
        else:
            for entry in self._new:
                heapq.heappush(self._heap, entry)
        self._new.clear()
        return self._heap[0][0] if self._heap else None

    def take(self) -> Host:
        self.best()
        return heapq.heappop(self._heap)[1]


class _RandomLeaf:
    """Open hosts in no order: each is as likely as any other to be the next."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self._hosts: list[Host] = []
        #: Drawn for the next one: its place among other leaves, and its place in the list.
        self._next: tuple[float, int] | None = None

    def add(self, host: Host, *, is_open: bool) -> None:
        if is_open:
            self._hosts.append(host)
            self._next = None

    def best(self) -> Key | None:
        if not self._hosts:
            return None
        if self._next is None:
            self._next = self._source.random(), self._source.randrange(len(self._hosts))
        return (self._next[0],)

    def take(self) -> Host:
        self.best()
        assert self._next is not None, "only a leaf with hosts is asked for one"
        index = self._next[1]
        self._hosts[index], self._hosts[-1] = self._hosts[-1], self._hosts[index]
        self._next = None
        return self._hosts.pop()


class _Branch:
    """Hosts split by the value that the first strategy of the chain gives them, each part ordered by the rest.

    The heap has an entry for each state a part has been in; those that aren't true any more are dropped on surfacing.
    """

    def __init__(self, chain: Sequence[Strategy], source: random.Random) -> None:
        self._strategy = chain[0]
        self._rest = chain[1:]
        self._source = source
        self._parts: dict[Any, Ranking] = {}
        self._group_tasks: Counter[Any] = Counter()
        self._heap: list[tuple[Key, Any]] = []
        #: Values of the parts that have changed since the heap was looked at. A dict, for its order.
        self._changed: dict[Any, None] = {}

    def add(self, host: Host, *, is_open: bool) -> None:
        value = self._value(host)
        part = self._parts.get(value)
        if part is None:
            part = self._parts[value] = rank(self._rest, self._source)
        self._group_tasks[value] += host.group_tasks
        part.add(host, is_open=is_open)
        self._changed[value] = None

    def best(self) -> Key | None:
        for value in self._changed:
            key = self._key(value)
            if key is not None:
                heapq.heappush(self._heap, (key, value))
        self._changed.clear()
        while self._heap and self._heap[0][0] != self._key(self._heap[0][1]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self) -> Host:
        self.best()
        value = self._heap[0][1]
        host = self._parts[value].take()
        self._group_tasks[value] -= host.group_tasks
        self._changed[value] = None
        return host

    def _value(self, host: Host) -> Any:
        if self._strategy.by_attribute:
            instance = host.candidate.instance
            return instance.attributes.get(
                self._strategy.field, instance.facts.attributes.get(self._strategy.field, "")
            )
        return _score(self._strategy, host)

    def _key(self, value: Any) -> Key | None:
        best = self._parts[value].best()
        if best is None:
            return None
        return (self._group_tasks[value] if self._strategy.by_attribute else value, *best)


def _score(strategy: Strategy, host: Host) -> int:
    """What a host is worth by itself, the least being the best."""
    return host.left(strategy.field) if strategy.type == "binpack" else host.group_tasks
