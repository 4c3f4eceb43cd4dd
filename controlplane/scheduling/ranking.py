"""Ranking: which of the open hosts is next under a chain of strategies.

Strategies are a chain: hosts are narrowed by the first, ties by the second, and so on; what still ties goes to the host
with the fewest tasks, then to the smallest id. A spread over an attribute counts the group's tasks among the hosts
that the strategies before it left, also those that can't take more, so that zones stay even when one fills up.

The hosts are kept in a tree, one level for each strategy that looks beyond the single host, and a heap at each leaf.
Adding a host does no more than file it; the order is made when somebody asks for the best. A host that is removed stays
in its heap until it surfaces there, or until half of the heap is of that kind.
"""

import heapq
import random
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any, Protocol

from msgspec.structs import replace

from controlplane.scheduling.model import Candidate, Demand, Strategy

__all__ = ["Host", "Key", "Ranking", "rank"]


class Host:
    """A candidate, and what this placement has put on it so far."""

    __slots__ = ("_copied", "candidate", "demand", "is_open")

    def __init__(self, candidate: Candidate, demand: Demand, *, is_open: bool) -> None:
        self.candidate = candidate
        self.demand = demand
        #: Whether it can take one more. Set before it is added; a ranking clears it when the host is removed.
        self.is_open = is_open
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

    def foresaw(self, candidate: Candidate) -> bool:
        """Tell whether the host has become just what it was ranked as: with the tasks that were put on it here."""
        mine = self.candidate
        # Without a copy the load is the state's own, which is always equal to itself.
        unchanged = mine.instance is candidate.instance and mine.presence is candidate.presence
        return self._copied and unchanged and mine.load == candidate.load

    def left(self, field: str) -> int:
        """Return what is left of "cpu" (units) or "memory" (MiB)."""
        total, held = self.candidate.instance.facts.resources, self.candidate.load
        return total.cpu_units - held.cpu_units if field == "cpu" else total.memory_mib - held.memory_mib


#: What hosts, and branches by their best host, are ordered by: the least first.
Key = tuple[Any, ...]


class Ranking(Protocol):
    """A set of hosts, some open (can take one more), that knows which of those is next."""

    def add(self, host: Host) -> None:
        """File a host: a new one, or one that was taken out and has changed."""
        ...

    def remove(self, host: Host) -> None:
        """Forget a host that was added and not taken out since."""
        ...

    def best(self) -> Key | None:
        """Return what the next host is worth among others; None if no host is open."""
        ...

    def take(self) -> Host | None:
        """Take the next host out, with its tasks: whoever takes it adds it again, open or not. None if none is open."""
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
        #: (key, a number that no other entry has, host): the number keeps equal keys from comparing hosts.
        self._heap: list[tuple[Key, int, Host]] = []
        self._new: list[tuple[Key, int, Host]] = []
        self._numbers = count()
        #: Entries of hosts that were removed.
        self._stale = 0

    def add(self, host: Host) -> None:
        if host.is_open:
            scores = [_score(strategy, host) for strategy in self._chain]
            candidate = host.candidate
            self._new.append(((*scores, candidate.load.tasks, candidate.instance.id), next(self._numbers), host))

    def remove(self, host: Host) -> None:
        if host.is_open:
            host.is_open = False
            self._stale += 1

    def best(self) -> Key | None:
        self._merge()
        while self._heap and not self._heap[0][2].is_open:
            heapq.heappop(self._heap)
            self._stale -= 1
        return self._heap[0][0] if self._heap else None

    def take(self) -> Host | None:
        return None if self.best() is None else heapq.heappop(self._heap)[2]

    def _merge(self) -> None:
        if len(self._new) > len(self._heap) or 2 * self._stale > len(self._heap):
            self._heap = [entry for entry in (*self._heap, *self._new) if entry[2].is_open]
            heapq.heapify(self._heap)
            self._stale = 0
        else:
            for entry in self._new:
                heapq.heappush(self._heap, entry)
        self._new.clear()


class _RandomLeaf:
    """Open hosts in no order: each is as likely as any other to be the next."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        #: Those that were removed among them, until they are drawn.
        self._hosts: list[Host] = []
        #: Drawn for the next one: its place among other leaves, and its place in the list.
        self._next: tuple[float, int] | None = None

    def add(self, host: Host) -> None:
        if host.is_open:
            self._hosts.append(host)
            self._next = None

    def remove(self, host: Host) -> None:
        host.is_open = False
        self._next = None

    def best(self) -> Key | None:
        while self._next is None and self._hosts:
            index = self._source.randrange(len(self._hosts))
            if self._hosts[index].is_open:
                self._next = self._source.random(), index
            else:
                self._pop(index)
        return None if self._next is None else (self._next[0],)

    def take(self) -> Host | None:
        if self.best() is None:
            return None
        assert self._next is not None, "best has drawn it"
        index, self._next = self._next[1], None
        return self._pop(index)

    def _pop(self, index: int) -> Host:
        self._hosts[index], self._hosts[-1] = self._hosts[-1], self._hosts[index]
        return self._hosts.pop()


class _Branch:
    """Hosts split by the value that the first strategy of the chain gives them, each part ordered by the rest.

    The heap has an entry for each state a part has been in; those that aren't true any more are dropped on surfacing,
    or when there are too many.
    """

    def __init__(self, chain: Sequence[Strategy], source: random.Random) -> None:
        self._strategy = chain[0]
        self._rest = chain[1:]
        self._source = source
        self._parts: dict[Any, Ranking] = {}
        #: Under which value each host was filed, and with how many tasks of the group.
        self._filed: dict[Host, tuple[Any, int]] = {}
        self._sizes: Counter[Any] = Counter()
        self._group_tasks: Counter[Any] = Counter()
        self._heap: list[tuple[Key, Any]] = []
        #: Values of the parts that have changed since the heap was looked at. A dict, for its order.
        self._changed: dict[Any, None] = {}

    def add(self, host: Host) -> None:
        value, group_tasks = self._filed[host] = self._value(host), host.group_tasks
        part = self._parts.get(value)
        if part is None:
            part = self._parts[value] = rank(self._rest, self._source)
        self._sizes[value] += 1
        self._group_tasks[value] += group_tasks
        part.add(host)
        self._changed[value] = None

    def remove(self, host: Host) -> None:
        self._parts[self._filed[host][0]].remove(host)
        self._unfile(host)

    def best(self) -> Key | None:
        if len(self._heap) > 2 * len(self._parts) + 64:
            self._heap.clear()
            self._changed = dict.fromkeys(self._parts)
        for value in self._changed:
            key = self._key(value)
            if key is not None:
                heapq.heappush(self._heap, (key, value))
        self._changed.clear()
        while self._heap and self._heap[0][0] != self._key(self._heap[0][1]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self) -> Host | None:
        if self.best() is None:
            return None
        host = self._parts[self._heap[0][1]].take()
        assert host is not None, "a part with a key has an open host"
        self._unfile(host)
        return host

    def _unfile(self, host: Host) -> None:
        value, group_tasks = self._filed.pop(host)
        self._group_tasks[value] -= group_tasks
        self._sizes[value] -= 1
        if not self._sizes[value]:
            del self._parts[value], self._sizes[value], self._group_tasks[value]
        self._changed[value] = None

    def _value(self, host: Host) -> Any:
        if self._strategy.by_attribute:
            instance = host.candidate.instance
            return instance.attributes.get(
                self._strategy.field, instance.facts.attributes.get(self._strategy.field, "")
            )
        return _score(self._strategy, host)

    def _key(self, value: Any) -> Key | None:
        part = self._parts.get(value)
        best = None if part is None else part.best()
        if best is None:
            return None
        return (self._group_tasks[value] if self._strategy.by_attribute else value, *best)


def _score(strategy: Strategy, host: Host) -> int:
    """What a host is worth by itself, the least being the best."""
    return host.left(strategy.field) if strategy.type == "binpack" else host.group_tasks
