"""A table of records of one kind with secondary indexes, ordered by key so that pages are cheap and stable."""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from sortedcontainers import SortedList

from controlplane.state.records import Record

__all__ = ["LARGE_BUCKET", "Table"]

R = TypeVar("R", bound=Record)

#: A bucket with more keys is an _OrderedKeys (cheap to change at any size), one with fewer a plain list (a fraction of
#: the memory: most buckets of "tasks by host" hold a handful).
LARGE_BUCKET: Final = 1000


class _OrderedKeys:
    """A set of keys, however many, that is read in order.

    It changes far more often than it is read, and most changes are soon undone (a task is pending for a moment): so a
    change is only noted, and brought into order when somebody reads, or when so much is noted that sorting is cheaper.
    """

    __slots__ = ("_in_order", "_length", "_noted")

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._in_order = SortedList(keys)
        self._length = len(self._in_order)
        #: key -> whether it was added (else removed) since the keys were in order.
        self._noted: dict[str, bool] = {}

    def __len__(self) -> int:
        return self._length

    def add(self, key: str) -> None:
        """Add a key that isn't there."""
        self._length += 1
        self._note(key, added=True)

    def remove(self, key: str) -> None:
        """Remove a key that is there."""
        self._length -= 1
        self._note(key, added=False)

    def read(self, after: str | None = None) -> Iterator[str]:
        """Iterate the keys in order, beginning behind `after`. They must not change meanwhile."""
        self._settle()
        if after is None:
            return iter(self._in_order)
        keys: Iterator[str] = self._in_order.irange(minimum=after, inclusive=(False, True))
        return keys

    def __iter__(self) -> Iterator[str]:
        return self.read()

    def _note(self, key: str, *, added: bool) -> None:
        if self._noted.pop(key, None) is None:  # otherwise this undoes what was noted
            self._noted[key] = added
            if len(self._noted) > LARGE_BUCKET and 4 * len(self._noted) > len(self._in_order):
                self._settle()

    def _settle(self) -> None:
        if self._noted:
            for key, added in self._noted.items():
                if not added:
                    self._in_order.remove(key)
            self._in_order.update([key for key, added in self._noted.items() if added])
            self._noted.clear()


class _Index:
    """value -> sorted keys of the records that have it."""

    def __init__(self) -> None:
        self._buckets: dict[Hashable, list[str] | _OrderedKeys] = {}

    def add(self, value: Hashable, key: str) -> None:
        bucket = self._buckets.get(value)
        if bucket is None:
            self._buckets[value] = [key]
        elif isinstance(bucket, list):
            insort(bucket, key)
            if len(bucket) > LARGE_BUCKET:
                self._buckets[value] = _OrderedKeys(bucket)
        else:
            bucket.add(key)

    def remove(self, value: Hashable, key: str) -> None:
        bucket = self._buckets[value]
        if isinstance(bucket, list):
            del bucket[bisect_left(bucket, key)]
        else:
            bucket.remove(key)
        if not bucket:
            del self._buckets[value]

    def keys(self, value: Hashable, after: str | None = None) -> Iterable[str]:
        """The keys filed under `value`, in order, beginning behind `after`."""
        bucket = self._buckets.get(value, ())
        if isinstance(bucket, _OrderedKeys):
            return bucket.read(after)
        if after is None:
            return bucket
        return islice(bucket, bisect_right(bucket, after), None)

    def count(self, value: Hashable) -> int:
        return len(self._buckets.get(value, ()))

    def contents(self) -> object:
        return {value: list(bucket) for value, bucket in self._buckets.items()}


class _Tally:
    """value -> how many records have it."""

    def __init__(self) -> None:
        self.counts: Counter[Hashable] = Counter()

    def add(self, value: Hashable, _: str) -> None:
        self.counts[value] += 1

    def remove(self, value: Hashable, _: str) -> None:
        self.counts[value] -= 1
        if not self.counts[value]:
            del self.counts[value]

    def contents(self) -> object:
        return self.counts


class Table(Generic[R]):
    """Records by key. Only `State` writes; everyone may read.

    `file` tells under which value a record is filed in each of `indexes` (None: not there). Of those that are in
    `tallies` too the records are only counted. One function for all, since it is asked with each change.
    """

    def __init__(
        self,
        file: Callable[[R], Sequence[Hashable | None]] = lambda _: (),
        indexes: Sequence[str] = (),
        *,
        tallies: Collection[str] = (),
    ) -> None:
        self._records: dict[str, R] = {}
        self._keys = _OrderedKeys()
        self._file = file
        self._names = tuple(indexes)
        self._nowhere = (None,) * len(indexes)
        self._tallies = {name: _Tally() for name in indexes if name in tallies}
        self._indexes = {name: _Index() for name in indexes if name not in tallies}
        self._books = [self._tallies[name] if name in tallies else self._indexes[name] for name in indexes]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[R]:
        return (self._records[key] for key in self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._records

    def get(self, key: str) -> R | None:
        """Return the record, or None."""
        return self._records.get(key)

    def where(self, index: str, value: Hashable) -> Iterator[R]:
        """Iterate the records filed under `value`, in key order. The table must not change meanwhile."""
        return (self._records[key] for key in self._indexes[index].keys(value))

    def count(self, index: str, value: Hashable) -> int:
        """Return how many records are filed under `value` in an index, or counted in a tally; costs nothing."""
        if index in self._tallies:
            return self._tallies[index].counts.get(value, 0)
        return self._indexes[index].count(value)

    def tally(self, name: str) -> Mapping[Hashable, int]:
        """Return how many records there are of each value; costs nothing. Values without records are absent."""
        return MappingProxyType(self._tallies[name].counts)

    def page(self, index: str | None, value: Hashable, *, after: str | None) -> Iterator[R]:
        """Iterate records in key order, beginning behind the key `after`; all records if `index` is None."""
        keys = self._keys.read(after) if index is None else self._indexes[index].keys(value, after)
        return (self._records[key] for key in keys)

    def fill(self, records: Iterable[R]) -> None:
        """Take records into the empty table: less than half the work of one by one. For `State` alone."""
        assert not self._records, "only an empty table can be filled"
        self._records.update((record.key, record) for record in records)
        self._keys = _OrderedKeys(self._records)
        for record in self:
            # In key order, so that each comes to the end of its bucket.
            self._refile(record.key, self._nowhere, self._file(record))

    def replace(self, key: str, new: R | None) -> R | None:
        """Put (or, with None, delete) a record and return the one that was there. For `State` alone."""
        old = self._records.get(key)
        if new is not None:
            self._records[key] = new
            if old is None:
                self._keys.add(key)
        elif old is not None:
            del self._records[key]
            self._keys.remove(key)
        before = self._nowhere if old is None else self._file(old)
        after = self._nowhere if new is None else self._file(new)
        if before != after:
            self._refile(key, before, after)
        return old

    def _refile(self, key: str, before: Sequence[Hashable | None], after: Sequence[Hashable | None]) -> None:
        for book, was, now in zip(self._books, before, after, strict=True):
            if was != now:
                if was is not None:
                    book.remove(was, key)
                if now is not None:
                    book.add(now, key)

    def validate(self) -> None:
        """Raise AssertionError unless every index and tally is what the records give. Scans the table; for tests."""
        assert all(key == record.key for key, record in self._records.items()), "a record is under another one's key"
        assert list(self._keys) == sorted(self._records), "the table's keys are not in order"
        found = self._contents()
        expected: Table[R] = Table(self._file, self._names, tallies=self._tallies)
        expected.fill(self)
        for name, contents in expected._contents().items():
            assert found[name] == contents, f"the index {name!r} is wrong: {found[name]} instead of {contents}"

    def _contents(self) -> dict[str, object]:
        return {name: book.contents() for name, book in zip(self._names, self._books, strict=True)}
