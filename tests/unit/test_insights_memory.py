"""A query of Logs Insights holds bounded memory, and says so when that doesn't do."""

import math
import random
from collections.abc import Sequence

import pytest

from controlplane.logs.insights.aggregates import AGGREGATES, EXACT
from controlplane.logs.insights.execution import QueryFailed
from tests.fakes.insights import GROUP, answer, events, execution

SMALL = 100_000


def feed(query: str, *, count: int, size: int = 10, limit: int = 10_000) -> int:
    """Feed events of `size` characters to a query that may hold 100 kB; return how many rows it gave."""
    running = execution(query, limit=limit, max_memory_bytes=SMALL)
    for first in range(0, count, 50):
        running.feed(GROUP, events(*(f"{n:0{size}}" for n in range(first, first + 50))))
    return len(running.finish())


@pytest.mark.parametrize("query", ["limit 10", "sort @message desc | limit 10", "sort @timestamp | limit 10"])
def test_a_limit_bounds_what_is_held_however_many_events_come(query: str) -> None:
    assert feed(query, count=5000, size=1000) == 10


@pytest.mark.parametrize("limit", [1, 50, 2500, 9000])
def test_the_first_of_many_rows_are_the_right_ones(limit: int) -> None:
    chance = random.Random(limit)
    values = [(chance.randrange(40), chance.choice("abcde")) for _ in range(7000)]
    given = events(*(f'{{"n": {number}, "t": "{letter}"}}' for number, letter in values))
    wanted = sorted(enumerate(values), key=lambda pair: (pair[1][0], [-ord(pair[1][1]), -pair[0]]))
    rows = answer(f"fields n, t, toMillis(@timestamp) as at | sort n, t desc | limit {limit}", given)
    assert [(row["n"], row["t"], row["at"]) for row in rows] == [
        (str(number), letter, str(given[place][1].at)) for place, (number, letter) in wanted[:limit]
    ]


def test_filters_behind_a_sort_dont_make_it_hold_more() -> None:
    assert feed("sort @message | filter @message like '99' | limit 10", count=5000, size=1000) == 10


def test_an_order_before_stats_holds_no_rows() -> None:
    assert feed("sort @message desc | stats count(*)", count=5000, size=1000) == 1


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("fields @message", "ask for a shorter time, filter more, or set a smaller limit"),
        ("dedup @message", "ask for a shorter time"),
        ("dedup missing", "ask for a shorter time"),
        ("stats count(*) by @message", "group by less, or ask for a shorter time"),
        ("stats earliest(@message) by @timestamp, @message", "group by less"),
        ("fields replace(@message, '0', '0-') as a | sort a", "smaller limit"),
        ("stats max(replace(@message, '0', '0-')) by @message", "group by less"),
        ("fields jsonParse(concat('[', @message, ']')) as a", "smaller limit"),
    ],
)
def test_what_would_hold_too_much_fails_with_what_to_do(query: str, why: str) -> None:
    with pytest.raises(QueryFailed, match=why):
        feed(query, count=5000, size=300)


def test_one_group_of_long_values_is_bounded_too() -> None:
    assert feed("stats latest(@message), earliest(@message), max(@message)", count=200, size=2000) == 1


def test_a_result_that_is_larger_than_its_rows_fails() -> None:
    wide = ", ".join(f"concat(@message, '{n}') as c{n}" for n in range(40))
    with pytest.raises(QueryFailed, match="smaller limit"):
        feed(f"limit 50 | display {wide}", count=50, size=100)


# ---------------------------------------------------------------- many values in little room


def gathered(name: str, values: Sequence[object], *parameters: float) -> tuple[float, int]:
    gather = AGGREGATES[name].make(*parameters)
    for value in values:
        gather.add(value, 0)
    return gather.result(), gather.size()


@pytest.mark.parametrize("count", [EXACT, 2 * EXACT, 100_000])
def test_distinct_values_are_exact_and_beyond_10000_within_three_percent(count: int) -> None:
    result, size = gathered("count_distinct", [f"user-{n}" for n in range(count)] * 2)
    assert result == count if count <= EXACT else abs(result - count) < 0.03 * count
    assert size < 1_100_000 if count <= EXACT else size < 20_000


@pytest.mark.parametrize("percent", [0, 1, 50, 90, 99.9, 100])
def test_percentiles_beyond_10000_values_are_within_one_percent(percent: float) -> None:
    chance = random.Random(7)
    values: list[object] = [round(chance.lognormvariate(3, 2), 3) - 5 for _ in range(3 * EXACT)]
    result, size = gathered("pct", values, percent)
    numbers = sorted(float(str(value)) for value in values)
    exact = numbers[max(math.ceil(int(percent * 10) * len(numbers) / 1000), 1) - 1]
    assert result == pytest.approx(exact, rel=0.011, abs=0.001)
    assert size < 400_000


def test_percentiles_of_zeros_and_of_both_signs() -> None:
    values: list[object] = [-8, 0, 8] * EXACT
    assert gathered("pct", values, 10)[0] == pytest.approx(-8, rel=0.011)
    assert gathered("pct", values, 50)[0] == 0
    assert gathered("pct", values, 90)[0] == pytest.approx(8, rel=0.011)


def test_sums_of_what_has_no_end_are_no_value() -> None:
    assert answer("stats sum(v) as s", events('{"v": 1e308}', '{"v": 1e308}')) == [{}]
