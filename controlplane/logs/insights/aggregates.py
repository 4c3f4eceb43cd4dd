"""The functions of `stats`, which make one value of many. Pure.

    gather = AGGREGATES["avg"].make(parameter)
    gather.add(value, at)          # of each row; `at`: when its event happened
    gather.result()

Each takes bounded memory however many values there are: distinct values are counted exactly up to 10,000 and estimated
beyond (HyperLogLog, about 1 %), percentiles are exact up to 10,000 values and within 1 % beyond (logarithmic buckets).
`size()` tells about how many bytes it takes now.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from controlplane.logs.insights.values import KEY_PART_BYTES, number_of, shown, sort_key

__all__ = ["AGGREGATES", "Aggregate", "Gather"]

#: Up to so many values (distinct ones, or of a percentile) are kept as they are.
EXACT: Final = 10_000


class Gather(Protocol):
    """Gathers the values of one group."""

    def add(self, value: Any, at: int, /) -> None:
        """Take one value in."""
        ...

    def result(self) -> Any:
        """Return the result; None if there is none."""
        ...

    def size(self) -> int:
        """Return about how many bytes of memory it takes."""
        ...


class _Count:
    def __init__(self) -> None:
        self._count = 0

    def add(self, value: Any, _at: int) -> None:
        self._count += value is not None

    def result(self) -> int:
        return self._count

    def size(self) -> int:
        return 64


class _Moments:
    """Count, sum, mean and squared deviations, as Welford sums them."""

    def __init__(self, pick: Callable[["_Moments"], Any]) -> None:
        self._pick = pick
        self.count = 0
        self.total: int | float = 0
        self.mean = 0.0
        self.squares = 0.0

    def add(self, value: Any, _at: int) -> None:
        number = number_of(value)
        if number is None:
            return
        self.count += 1
        self.total += number
        off = number - self.mean
        self.mean += off / self.count
        self.squares += off * (number - self.mean)

    def result(self) -> Any:
        result = self._pick(self) if self.count else None
        return result if result is None or math.isfinite(result) else None

    def size(self) -> int:
        return 250


class _Chosen:
    """Keeps the one value whose key wins over all others; of equal ones the first, or with `last` the last."""

    def __init__(self, key: Callable[[Any, int], Any], *, greatest: bool = False, last: bool = False) -> None:
        self._key = key
        self._greatest = greatest
        self._last = last
        self._best: Any = None
        self._best_key: Any = None

    def add(self, value: Any, at: int) -> None:
        if value is None:
            return
        key = self._key(value, at)
        if self._best is None or (key > self._best_key if self._greatest else key < self._best_key):
            self._best, self._best_key = value, key
        elif self._last and key == self._best_key:
            self._best = value

    def result(self) -> Any:
        return self._best

    def size(self) -> int:
        key = self._best_key
        text = len(self._best) if isinstance(self._best, str) else 0
        return 250 + text + (KEY_PART_BYTES * len(key) if isinstance(key, tuple) else 0)


class _Distinct:
    """Exact while there are few; then HyperLogLog with 2^14 registers."""

    _BITS: Final = 14
    _REGISTERS: Final = 1 << _BITS

    def __init__(self) -> None:
        self._seen: set[int] | None = set()
        self._registers = bytearray()

    def add(self, value: Any, _at: int) -> None:
        if value is None:
            return
        hashed = int.from_bytes(hashlib.blake2b(shown(value).encode("utf-8", "replace"), digest_size=8).digest())
        if self._seen is None:
            self._note(hashed)
            return
        self._seen.add(hashed)
        if len(self._seen) > EXACT:
            self._registers = bytearray(self._REGISTERS)
            for each in self._seen:
                self._note(each)
            self._seen = None

    def _note(self, hashed: int) -> None:
        register = hashed & (self._REGISTERS - 1)
        rank = 64 - self._BITS - (hashed >> self._BITS).bit_length() + 1
        if rank > self._registers[register]:
            self._registers[register] = rank

    def result(self) -> int:
        if self._seen is not None:
            return len(self._seen)
        m = self._REGISTERS
        estimate = 0.7213 / (1 + 1.079 / m) * m * m / sum(2.0**-rank for rank in self._registers)
        empty = self._registers.count(0)
        if estimate <= 2.5 * m and empty:
            estimate = m * math.log(m / empty)
        return round(estimate)

    def size(self) -> int:
        return 300 + (self._REGISTERS if self._seen is None else 100 * len(self._seen))


class _Percentile:
    """Exact while there are few values; then counts of buckets whose bounds grow by 2 %."""

    _GROWTH: Final = math.log(1.02)

    def __init__(self, percent: float) -> None:
        self._percent = percent
        self._values: list[float] | None = []
        #: By sign (-1, 0, 1) and the logarithm of the magnitude.
        self._buckets: Counter[tuple[int, int]] = Counter()

    def add(self, value: Any, _at: int) -> None:
        number = number_of(value)
        if number is None:
            return
        if self._values is None:
            self._note(number)
            return
        self._values.append(number)
        if len(self._values) > EXACT:
            for each in self._values:
                self._note(each)
            self._values = None

    def _note(self, number: float) -> None:
        sign = (number > 0) - (number < 0)
        self._buckets[sign, sign and sign * round(math.log(abs(number)) / self._GROWTH)] += 1

    def result(self) -> Any:
        count = len(self._values) if self._values is not None else self._buckets.total()
        if not count:
            return None
        # Rounded, since 99.9 per cent of 30,000 are no more than 29,970.
        rank = max(math.ceil(round(self._percent * count / 100, 6)), 1)
        if self._values is not None:
            return sorted(self._values)[rank - 1]
        for (sign, place), held in sorted(self._buckets.items()):
            rank -= held
            if rank <= 0:
                return sign * math.exp(sign * place * self._GROWTH) if sign else 0
        raise AssertionError("a rank beyond the count")

    def size(self) -> int:
        return 300 + (150 * len(self._buckets) if self._values is None else 40 * len(self._values))


class Aggregate(NamedTuple):
    """A function of `stats`. `make` makes what gathers; `parameter`: it takes a number behind the field."""

    make: Callable[..., Gather]
    parameter: bool = False


def _variance(moments: _Moments) -> float:
    return max(moments.squares / moments.count, 0.0)


AGGREGATES: Final[dict[str, Aggregate]] = {
    "count": Aggregate(_Count),
    "count_distinct": Aggregate(_Distinct),
    "sum": Aggregate(lambda: _Moments(lambda m: m.total)),
    "avg": Aggregate(lambda: _Moments(lambda m: m.total / m.count)),
    "stddev": Aggregate(lambda: _Moments(lambda m: math.sqrt(_variance(m)))),
    "min": Aggregate(lambda: _Chosen(lambda value, _: _number_first(value))),
    "max": Aggregate(lambda: _Chosen(lambda value, _: sort_key(value), greatest=True)),
    "pct": Aggregate(_Percentile, parameter=True),
    "median": Aggregate(lambda: _Percentile(50)),
    "earliest": Aggregate(lambda: _Chosen(lambda _, at: at)),
    "latest": Aggregate(lambda: _Chosen(lambda _, at: at, greatest=True, last=True)),
    "sortsfirst": Aggregate(lambda: _Chosen(lambda value, _: sort_key(value))),
    "sortslast": Aggregate(lambda: _Chosen(lambda value, _: sort_key(value), greatest=True)),
}


def _number_first(value: Any) -> tuple[Any, ...]:
    """A least value is a number where there is one, though texts sort before numbers."""
    rank, *rest = sort_key(value)
    return (-rank, *rest)
