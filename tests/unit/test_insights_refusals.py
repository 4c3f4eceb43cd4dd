"""What Logs Insights' parser refuses, and that nothing else ever comes out of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.logs.insights.execution import Execution
from controlplane.logs.insights.expressions import MAX_DEPTH
from controlplane.logs.insights.parser import MAX_QUERY_LENGTH, parse_query
from controlplane.logs.insights.plan import make_plan
from controlplane.logs.insights.syntax import MalformedQuery
from tests.fakes.insights import GROUP, answer, events

COMMANDS = "fields, display, filter, parse, stats, sort, limit, dedup"

REFUSED = [
    ("", 0, 0, f"the query ends too early; expected a command: {COMMANDS}"),
    ("  # nothing", 11, 11, "the query ends too early"),
    ("fields a |", 10, 10, "the query ends too early; expected a command"),
    ("fields a | frobnicate b", 11, 21, "unexpected 'frobnicate', expected a command"),
    ("anomaly", 0, 7, "the command anomaly isn't supported by Homeport; supported: fields"),
    ("fields a | pattern @message", 11, 18, "the command pattern isn't supported"),
    ("SOURCE logGroups()", 0, 6, "the command SOURCE isn't supported"),
    ("fields a | diff", 11, 15, "the command diff isn't supported"),
    ("unnest a into b", 0, 6, "the command unnest isn't supported"),
    ("join x", 0, 4, "the command join isn't supported"),
    ("lookup x", 0, 6, "the command lookup isn't supported"),
    ("fields", 6, 6, "the query ends too early; expected a field"),
    ("fields a, , b", 10, 11, "unexpected ','"),
    ("fields (a", 9, 9, "expected ')'"),
    ("filter a like b", 14, 15, "expected a text in quotes or a regular expression between slashes"),
    ("filter a = ", 11, 11, "the query ends too early"),
    ("filter a == 1", 10, 11, "unexpected '='"),
    ('filter a = "open', 11, 12, "unexpected '\"'"),
    ("filter a = 1 b", 13, 14, "unexpected 'b'"),
    ("limit", 5, 5, "expected a number"),
    ("limit 0", 6, 7, "limit must be a whole number between 1 and 100000, but was 0"),
    ("limit 100001", 6, 12, "limit must be a whole number"),
    ("limit 1.5", 6, 9, "limit must be a whole number"),
    ("parse @message '* *' as a", 15, 20, "the pattern has 2 *, but 1 names are given"),
    ("parse @message 'a' as a", 15, 18, "the pattern has 0 *, but 1 names are given"),
    ("parse @message /a/", 15, 18, "the regular expression names no group"),
    ("parse @message /(?<a>/", 15, 22, "the regular expression can't be used: missing"),
    ("filter a like /(?=x)/", 14, 21, "RE2's syntax: no look-around"),
    ("filter frob(a) = 1", 7, 14, "there is no function frob(a) here"),
    ("filter count(a) = 1", 7, 15, "there is no function count(a) here"),
    ("fields strlen(a, b)", 7, 19, "strlen takes another number of arguments"),
    ("fields strlen()", 7, 15, "strlen takes another number of arguments"),
    ("fields bin(5)", 7, 13, "bin takes a period such as 5m: bin(5)"),
    ("fields datefloor(@timestamp, 5)", 7, 31, "datefloor takes a period such as 5m"),
    ("fields strlen(5m)", 14, 16, "a period can be given to bin, datefloor and dateceil"),
    ("fields 5m", 7, 9, "a period can be given to bin"),
    ("fields bin(0m)", 11, 13, "the period 0m can't be used"),
    ("fields bin(999999m)", 11, 18, "the period 999999m can't be used"),
    ("stats user by code", 0, 18, "stats: user holds none of the functions count, count_distinct"),
    ("stats sum(a, b)", 6, 15, "sum takes one field"),
    ("stats sum(*)", 6, 12, "sum takes one field"),
    ("stats pct(a)", 6, 12, "pct takes a field and a number"),
    ("stats pct(a, 101)", 6, 17, "pct: the percentile must be a number between 0 and 100"),
    ("stats pct(a, b)", 6, 15, "pct: the percentile must be a number"),
    ("stats sum(avg(a))", 10, 16, "there is no function avg(a) here"),
    ("stats count(*) by a | filter b = 1", 29, 30, "Unknown symbols found in or after stats: b"),
    ("stats count(*) as n | fields @message", 29, 37, "Unknown symbols found in or after stats: @message"),
    ("fields a | sort", 15, 15, "the query ends too early"),
    ("dedup strlen(a)", 12, 13, "unexpected '('"),
]


@pytest.mark.parametrize(("query", "start", "end", "message"), REFUSED, ids=[query or "-" for query, *_ in REFUSED])
def test_a_query_is_refused_with_why_and_where(query: str, start: int, end: int, message: str) -> None:
    with pytest.raises(MalformedQuery) as caught:
        make_plan(parse_query(query), limit=1, now=0)
    assert message in caught.value.message
    assert (caught.value.start, caught.value.end) == (start, end)


def test_a_query_may_have_10000_characters() -> None:
    padding = " " * (MAX_QUERY_LENGTH - len("limit 1"))
    parse_query(padding + "limit 1")
    with pytest.raises(MalformedQuery, match="10001 characters; 10000 are allowed"):
        parse_query(padding + " limit 1")


@pytest.mark.parametrize(
    "query",
    [
        "filter " + "not " * 2400 + "a",
        "fields " + "a+" * 4000 + "a",
        "fields " + "-" * 9000 + "a",
        "fields " + "2^" * 4000 + "2",
        "fields " + "abs(" * 1900 + "a" + ")" * 1900,
    ],
    ids=["not", "sum", "minus", "power", "calls"],
)
def test_what_is_nested_too_deeply_is_refused(query: str) -> None:
    with pytest.raises(MalformedQuery, match="nested"):
        make_plan(parse_query(query), limit=1, now=0)


def test_brackets_alone_are_not_deep() -> None:
    assert len(answer("filter " + "(" * 4900 + "a" + ")" * 4900, events('{"a": 1}'))) == 1


def test_long_chains_of_and_and_or_are_not_deep() -> None:
    query = "filter " + " or ".join(f"a = {n}" for n in range(3 * MAX_DEPTH))
    running = Execution(make_plan(parse_query(query), limit=1, now=0))
    running.feed(GROUP, events('{"a": 299}'))
    assert len(running.finish()) == 1


# ---------------------------------------------------------------- whatever comes in

_SAID = (
    "fields display filter parse stats sort limit dedup as by and or not in like desc asc | , ( ) [ ] = != <= =~ + - * "
    "/ % ^ # a b.c d[0] `x` @timestamp @message @ptr true 1 0.5 99 5m 1mo 1w 't' \"*x*\" /a(?<g>.)/ /[/ count(*) "
    "sum(a) pct(a,50) bin(1h) datefloor(a,1w) strlen(a) if(a,b.c,1) now() jsonParse(@message) substr(a,1) median(a)"
)
_WORDS = st.sampled_from(_SAID.split())
_MESSAGES = st.sampled_from(
    [
        *("plain", "", "{}", '{"a": 1}', '{"a": "x", "b": {"c": -1e308}, "d": [null]}', '{"a": [1], "b": {"c": true}}'),
        *('{"a": 1e999}', '{"a": 123456789012345678901234567890}', "ta9x*", "{", '{"a": "9e9"}'),
    ]
)
_ONE = "abs ceil floor log sqrt strlen toupper trim isempty frommillis tomillis jsonparse jsonstringify isvalidip"
_TWO = "substr concat strcontains coalesce greatest isipinsubnet"


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    periods = st.sampled_from(["1ms", "7w", "3mo", "9y"])
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/%^"), inner),
        st.builds("{}({})".format, st.sampled_from(_ONE.split()), inner),
        st.builds("{}({}, {})".format, st.sampled_from(_TWO.split()), inner, inner),
        st.builds("{}({}, {})".format, st.sampled_from(["datefloor", "dateceil"]), inner, periods),
    )


_EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b.c", "d[0]", "@timestamp", "'x'", "1", "-3", "@message", "1e300", "true"]),
    _larger,
    max_leaves=8,
)
_COMMANDS = st.sampled_from(
    ["fields {0} as x", "filter {0}", "stats sum({0}) as x by {0}", "sort {0} desc, {0}", "stats max({0}), min({0})"]
)


def _run(query: str, messages: list[str]) -> None:
    """Run a query; it may be refused, in one place of it."""
    try:
        running = Execution(make_plan(parse_query(query), limit=10, now=0))
    except MalformedQuery as error:
        assert 0 <= error.start <= error.end <= len(query)  # noqa: PT017 - it may as well not be raised
        return
    running.feed(GROUP, events(*messages))
    for row in running.finish():
        assert all(type(value) is str for pair in row for value in pair)


@given(st.lists(_WORDS, max_size=14).map(" ".join), st.lists(_MESSAGES, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_words_are_answered_or_refused(query: str, messages: list[str]) -> None:
    _run(query, messages)


@given(_COMMANDS, _EXPRESSIONS, st.lists(_MESSAGES, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_expression_is_computed_without_error(command: str, expression: str, messages: list[str]) -> None:
    _run(command.format(expression), messages)


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_is_answered_or_refused(query: str) -> None:
    _run(query, ["a"])
