"""A table of records of one kind with secondary indexes, ordered by key so that pages are cheap and stable."""

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from sortedcontainers import SortedDict, SortedSet

from controlplane.state.records import Record

__all__ = ["Table"]

R = TypeVar("R", bound=Record)


class _Index(Generic[R]):
    """value -> sorted keys of the records that have it."""

    def __init__(self, value_of: Callable[[R], Hashable | None]) -> None:
        self._value_of = value_of
        self._buckets: dict[Hashable, SortedSet] = {}

    def change(self, old: R | None, new: R | None) -> None:
        before = None if old is None else self._value_of(old)
        after = None if new is None else self._value_of(new)
        if before == after:
            return
        if old is not None and before is not None:
            bucket = self._buckets[before]
            bucket.discard(old.key)
            if not bucket:
                del self._buckets[before]
        if new is not None and after is not None:
            self._buckets.setdefault(after, SortedSet()).add(new.key)

    def bucket(self, value: Hashable) -> SortedSet:
        return self._buckets.get(value, _EMPTY)


_EMPTY = SortedSet()


class Table(Generic[R]):
    """Records by key. Only `State` writes; everyone may read.

    `indexes`: name -> function giving the value a record is filed under (None: not filed).
    """

    def __init__(self, **indexes: Callable[[R], Hashable | None]) -> None:
        self._records: SortedDict = SortedDict()
        self._indexes = {name: _Index(value_of) for name, value_of in indexes.items()}

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[R]:
        return iter(self._records.values())

    def __contains__(self, key: object) -> bool:
        return key in self._records

    def get(self, key: str) -> R | None:
        """Return the record, or None."""
        record: R | None = self._records.get(key)
        return record

    def where(self, index: str, value: Hashable) -> Iterator[R]:
        """Iterate the records filed under `value`, in key order. The table must not change meanwhile."""
        return (self._records[key] for key in self._indexes[index].bucket(value))

    def count(self, index: str, value: Hashable) -> int:
        """Return how many records are filed under `value`; costs nothing."""
        return len(self._indexes[index].bucket(value))

    def page(self, index: str | None, value: Hashable, *, after: str | None) -> Iterator[R]:
        """Iterate records in key order, beginning behind the key `after`; all records if `index` is None."""
        keys = self._records if index is None else self._indexes[index].bucket(value)
        found = keys.irange(minimum=after, inclusive=(False, True)) if after is not None else iter(keys)
        return (self._records[key] for key in found)

    def replace(self, key: str, new: R | None) -> R | None:
        """Put (or, with None, delete) a record and return the one that was there. For `State` alone."""
        old: R | None = self._records.get(key)
        if new is None:
            self._records.pop(key, None)
        else:
            self._records[key] = new
        for index in self._indexes.values():
            index.change(old, new)
        return old
