"""Several logs as one: by time, each in its own order, with no more read than is shown."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.logview.history import ends_with, merged
from controlplane.api.logview.model import FeedBroken, Line, Place, Sieve, Span


class Listed:
    """A feed of given lines, some at a time."""

    place = None

    def __init__(self, name: str, times: Sequence[int], *, page: int = 3, breaks: bool = False) -> None:
        self.name = name
        self.lines = [Line(float(at), "stdout", f"{name}{n}", name, "web", n) for n, at in enumerate(times, 1)]
        self.last_at = self.lines[-1].at if self.lines else None
        self._page = page
        self._breaks = breaks
        self.read = 0

    async def forwards(self, span: Span, *, page_bytes: int) -> AsyncGenerator[Sequence[Line]]:
        assert page_bytes > 0
        found = [line for line in self.lines if span.after is None or (line.at, line.number) > span.after]
        for begin in range(0, len(found), self._page):
            self.read += self._page
            yield found[begin : begin + self._page]
        if self._breaks:
            raise FeedBroken("broken")

    async def backwards(self, span: Span, sieve: Sieve, *, page: int) -> AsyncGenerator[Sequence[Place]]:
        assert span == Span()
        places = [(line.at, line.number) for line in sieve.sift(self.lines)][::-1]
        for begin in range(0, len(places), page):
            self.read += page
            yield places[begin : begin + page]

    async def live(self) -> AsyncGenerator[Sequence[Line]]:
        for lines in (self.lines,):
            yield lines

    def skip(self, place: Place) -> None:
        raise AssertionError

    def rest(self) -> str:
        return ""


async def texts(feeds: Sequence[Listed], broken: list[str] | None = None) -> list[str]:
    told = [] if broken is None else broken
    pages = merged(dict.fromkeys(feeds, Span()), lambda feed, _: told.append(feed.name))  # type: ignore[attr-defined]
    async with aclosing(pages):
        return [line.text async for lines in pages for line in lines]


times = st.lists(st.integers(0, 50), max_size=20)


@given(st.lists(times.map(sorted), max_size=5))
async def test_lines_come_by_time(logs: list[list[int]]) -> None:
    feeds = [Listed(chr(97 + number), log) for number, log in enumerate(logs)]
    expected = sorted((line for feed in feeds for line in feed.lines), key=lambda line: (line.at, line.task))
    assert sorted(await texts(feeds)) == sorted(line.text for line in expected)
    found = await texts(feeds)
    at = {line.text: line.at for line in expected}
    assert [at[text] for text in found] == [line.at for line in expected]


@given(st.lists(times, max_size=4))
async def test_each_log_keeps_its_own_order_whatever_its_clock_says(logs: list[list[int]]) -> None:
    feeds = [Listed(chr(97 + number), log) for number, log in enumerate(logs)]
    found = await texts(feeds)
    for feed in feeds:
        assert [text for text in found if text[0] == feed.name] == [line.text for line in feed.lines]


async def test_a_log_that_breaks_leaves_the_others_be() -> None:
    broken: list[str] = []
    found = await texts([Listed("a", [1, 3], breaks=True), Listed("b", [2, 4])], broken)
    assert (found, broken) == (["a1", "b1", "a2", "b2"], ["a"])


@given(st.lists(times.map(sorted), max_size=5), st.integers(1, 30))
async def test_the_end_is_the_last_lines_of_all_together(logs: list[list[int]], count: int) -> None:
    feeds = [Listed(chr(97 + number), log) for number, log in enumerate(logs)]
    begins = await ends_with(feeds, Span(), Sieve(), count, lambda *_: None)
    shown = [line for feed in feeds if feed in begins for line in feed.lines if (line.at, line.number) >= begins[feed]]
    every = sorted(line.at for feed in feeds for line in feed.lines)
    assert sorted(line.at for line in shown) == every[-count:]


async def test_the_end_of_many_logs_reads_few_of_them() -> None:
    feeds = [Listed(f"{number:02}", range(number * 1000, number * 1000 + 500)) for number in range(50)]
    begins = await ends_with(feeds, Span(), Sieve(), 100, lambda *_: None)
    assert [feed.name for feed in feeds if feed in begins] == ["49"]
    assert sum(feed.read for feed in feeds) <= 200
