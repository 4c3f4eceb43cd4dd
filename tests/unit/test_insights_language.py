"""The commands of Logs Insights and how they work together, against what was worked out by hand."""

import pytest

from controlplane.logs.insights.rows import MAX_FIELDS, Pointer, all_fields
from tests.fakes.insights import GROUP, STREAM, T, answer, events, execution

ACCESS = events(
    '{"user": "ann", "ms": 12, "code": 200}',
    '{"user": "bob", "ms": 5, "code": 500}',
    "started",
    '{"user": "ann", "ms": 8, "code": 200}',
    '{"user": "cid", "ms": 30, "code": 404}',
)


def column(query: str, name: str) -> list[str | None]:
    return [row.get(name) for row in answer(query, ACCESS)]


# ---------------------------------------------------------------- what is shown


def test_without_fields_the_time_and_the_message_are_shown_newest_first() -> None:
    assert answer("limit 2", ACCESS) == [
        {"@timestamp": "2026-01-01 00:04:00.000", "@message": '{"user": "cid", "ms": 30, "code": 404}'},
        {"@timestamp": "2026-01-01 00:03:00.000", "@message": '{"user": "ann", "ms": 8, "code": 200}'},
    ]


def test_events_of_one_moment_come_in_reverse() -> None:
    assert answer("fields @message", events("a", "b", "c", step_ms=0)) == [{"@message": each} for each in "cba"]


def test_fields_add_up_and_are_named_as_they_are_written_or_by_their_alias() -> None:
    [row, *_] = answer("fields user, ms * 2 | fields `code` as status, strlen( user )", ACCESS)
    assert row == {"user": "cid", "ms * 2": "60", "status": "404", "strlen( user )": "3"}


def test_what_was_made_can_be_used_behind_it_and_hides_the_fields_of_the_event() -> None:
    query = "fields ms * 2 as double | fields double + 1 as more, concat(user, '!') as user | filter more > 50"
    assert answer(query, ACCESS) == [{"double": "60", "more": "61", "user": "cid!"}]


@pytest.mark.parametrize("shown", ["fields user", "display user"])
def test_a_column_shows_what_was_made_under_its_name_later(shown: str) -> None:
    assert answer(f"{shown} | parse '\"code\": *}}' as user | limit 1", ACCESS) == [{"user": "404"}]


def test_only_the_last_display_counts() -> None:
    query = "fields @timestamp, user | display ms | display user, code as status | limit 1"
    assert answer(query, ACCESS) == [{"user": "cid", "status": "404"}]


def test_rows_of_events_have_a_pointer_and_those_of_stats_have_none() -> None:
    running = execution("filter user = 'bob' | fields user")
    running.feed(GROUP, ACCESS)
    [row] = running.finish()
    assert row[0] == ("user", "bob")
    assert row[1][0] == "@ptr"
    assert Pointer.decode(row[1][1]) == Pointer(GROUP, STREAM, T + 60_000, 2)
    running = execution("stats count(*)")
    running.feed(GROUP, ACCESS)
    assert running.finish() == [(("count(*)", "5"),)]


def test_a_pointer_that_was_asked_for_is_there_once() -> None:
    running = execution("fields @ptr, user")
    running.feed(GROUP, ACCESS)
    assert [name for name, _ in running.finish()[0]] == ["user", "@ptr"]


@pytest.mark.parametrize("text", ["", "x", "WzFd", "W10", "=", "é"])
def test_what_is_no_pointer_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a pointer"):
        Pointer.decode(text)


# ---------------------------------------------------------------- filter, comments, words


def test_filters_one_behind_the_other_must_all_hold() -> None:
    assert column("filter user = 'ann' | filter ms < 10 | fields ms", "ms") == ["8"]


def test_comments_go_to_the_end_of_the_line_and_not_into_texts() -> None:
    query = """# all of them
        fields concat(user, '#1') as name  # with a number | limit 1
        | filter @message like /#?ann/ # | nothing
        | limit 1"""
    assert answer(query, ACCESS) == [{"name": "ann#1"}]


def test_commands_and_functions_may_be_written_in_either_case() -> None:
    query = "FIELDS user AS Who | Filter IsPresent(user) AND NOT user IN ['ann'] | SORT Who DESC | LIMIT 1"
    assert answer(query, ACCESS) == [{"Who": "cid"}]


def test_keywords_can_be_fields() -> None:
    given = events('{"limit": 1, "count": 2, "by": 3, "stats": {"sort": 4}, "not_found": 5, "fields": 6}')
    query = "fields limit, count, stats.sort, not_found, fields, by as desc | filter limit = 1 and not_found = 5"
    wanted = {"limit": "1", "count": "2", "stats.sort": "4", "not_found": "5", "fields": "6", "desc": "3"}
    assert answer(query, given) == [wanted]


# ---------------------------------------------------------------- parse


@pytest.mark.parametrize(
    ("parse", "text", "wanted"),
    [
        ("'user=* took *ms' as user, ms", "at 3: user=ann took 12ms.", {"user": "ann", "ms": "12"}),
        ("@message 'user=*' as user", "user=ann took 12ms", {"user": "ann took 12ms"}),
        ('@message "[*] *" as level, rest', "[ERROR] all [is] lost", {"level": "ERROR", "rest": "all [is] lost"}),
        ("'*:*' as a, b", "x:y:z", {"a": "x", "b": "y:z"}),
        ("'* * *' as a, b, c", "1 2 3 4", {"a": "1", "b": "2", "c": "3 4"}),
        ('\'"name":"*"\' as name', '{"name":"ann","x":"y"}', {"name": "ann"}),
        ("'user=* took *ms' as user, ms", "user=ann went", {}),
        ("'user=* ' as @user", "user=ann went", {"@user": "ann"}),
        ("'a.b *' as x", "a.b (c", {"x": "(c"}),
        ("/user=(?<user>\\w+) took (?<ms>\\d+)ms/", "so user=ann took 12ms", {"user": "ann", "ms": "12"}),
        ("@message /(?P<a>x)|(?<b>y)/", "y", {"b": "y"}),
        ("/(?<path>\\/api\\/\\S+)/", "GET /api/x HTTP", {"path": "/api/x"}),
        ("missing 'a*' as a", "abc", {}),
        ("/no (?<a>match)/", "abc", {}),
    ],
)
def test_parse_takes_fields_out_of_a_text(parse: str, text: str, wanted: dict[str, str]) -> None:
    [row] = answer(f"fields strlen(@message) as n | parse {parse}", events(text))
    assert row == {"n": str(len(text)), **wanted}


def test_parse_takes_from_any_field_and_can_do_so_twice() -> None:
    query = "parse user '*n' as a | filter a = 'a' | fields concat(a, '-') as b | parse b '*-' as c | display c"
    assert answer(f"{query} | limit 1", ACCESS) == [{"c": "a"}]


def test_parsed_fields_are_shown_beside_time_and_message() -> None:
    [row] = answer("parse 'a*' as x", events("abc"))
    assert row == {"@timestamp": "2026-01-01 00:00:00.000", "@message": "abc", "x": "bc"}


def test_numbers_that_were_parsed_compare_as_numbers() -> None:
    given = events("took 9ms", "took 10ms", "took 100ms")
    assert answer("parse 'took *ms' as ms | filter ms > 9 | sort ms | display ms", given) == [
        {"ms": "10"},
        {"ms": "100"},
    ]


# ---------------------------------------------------------------- stats


def test_stats_make_a_row_of_each_group_with_what_it_is_grouped_by_first() -> None:
    query = "filter ispresent(user) | stats count(*) as n, avg(ms) by user | sort n desc, user"
    assert answer(query, ACCESS) == [
        {"user": "ann", "n": "2", "avg(ms)": "10"},
        {"user": "bob", "n": "1", "avg(ms)": "5"},
        {"user": "cid", "n": "1", "avg(ms)": "30"},
    ]
    running = execution(query)
    running.feed(GROUP, ACCESS)
    assert [name for name, _ in running.finish()[0]] == ["user", "n", "avg(ms)"]


def test_events_without_the_field_are_a_group_of_their_own() -> None:
    assert answer("stats count(*) as n by user | sort user", ACCESS)[0] == {"n": "1"}


def test_stats_by_time_and_by_expressions() -> None:
    query = "stats count(*) as n by bin(2m), if(code < 400, 'good', 'bad') as kind | sort bin(2m), kind"
    assert answer(query, ACCESS) == [
        {"bin(2m)": "2026-01-01 00:00:00.000", "kind": "bad", "n": "1"},
        {"bin(2m)": "2026-01-01 00:00:00.000", "kind": "good", "n": "1"},
        {"bin(2m)": "2026-01-01 00:02:00.000", "kind": "bad", "n": "1"},
        {"bin(2m)": "2026-01-01 00:02:00.000", "kind": "good", "n": "1"},
        {"bin(2m)": "2026-01-01 00:04:00.000", "kind": "bad", "n": "1"},
    ]


def test_columns_of_stats_are_named_as_they_were_written_however_the_white_space() -> None:
    query = "stats COUNT( * ) by user | filter count(*) > 1 | sort count( * ) desc | display user, count(*)"
    assert answer(query, ACCESS) == [{"user": "ann", "count(*)": "2"}]


def test_stats_of_stats() -> None:
    query = (
        "stats sum(ms) as total by user | stats max(total) as most, count(*) as users | fields most / users as share"
    )
    assert answer(query, ACCESS) == [{"most": "30", "users": "4", "share": "7.5"}]


def test_stats_over_nothing_give_nothing() -> None:
    assert answer("filter user = 'nobody' | stats count(*)", ACCESS) == []


def test_the_earliest_by_group() -> None:
    query = "stats earliest(ms) as first, latest(ms) as last by user | filter user = 'ann'"
    assert answer(query, ACCESS) == [{"user": "ann", "first": "12", "last": "8"}]


# ---------------------------------------------------------------- sort, limit, dedup


def test_the_natural_order_of_values() -> None:
    # The example of CloudWatch's documentation.
    ordered = ["!:", "#", "*%04", "0#", "5A", "111A", "2345_", "@", "@_", "A", "A9876fghj", "a12345hfh"]
    numbers = ["0", "01", "1", "2", "3"]
    given = events(*(f'{{"v": "{value}"}}' for value in reversed([*ordered, "0", "1", "2", "3"])), "{}")
    numbers.remove("01")
    assert [row.get("v") for row in answer("fields v | sort v", given)] == [None, *ordered, *numbers]
    assert [row.get("v") for row in answer("fields v | sort v desc", given)] == [
        *reversed(numbers),
        *reversed(ordered),
        None,
    ]


def test_sorting_by_several_fields_each_in_its_own_direction() -> None:
    assert column("filter ispresent(user) | sort code desc, ms asc | fields ms", "ms") == ["5", "30", "8", "12"]
    assert column("filter ispresent(user) | sort code, ms desc | fields ms", "ms") == ["12", "8", "30", "5"]


def test_what_is_alike_stays_in_the_order_of_events_or_in_its_reverse() -> None:
    given = events("a", "b", "c", step_ms=0)
    for order, wanted in (("@timestamp", "abc"), ("@timestamp desc", "cba"), ("@logStream desc, n", "abc")):
        assert "".join(row["@message"] for row in answer(f"fields @message | sort {order}", given)) == wanted


def test_long_texts_are_sorted_by_what_is_beyond_their_beginning_too() -> None:
    texts = ["x" * 5000 + end for end in ("b", "a", "")]
    assert [row["@message"] for row in answer("fields @message | sort @message", events(*texts))] == texts[::-1]


def test_sorting_by_time_both_ways() -> None:
    assert column("sort @timestamp asc | limit 2 | fields ms", "ms") == ["12", "5"]
    assert column("sort @timestamp desc | limit 2 | fields ms", "ms") == ["30", "8"]
    assert column("sort ms | sort @timestamp | limit 2 | fields ms", "ms") == ["12", "5"]
    assert column("fields ms as @timestamp | sort @timestamp desc | limit 2 | fields ms", "ms") == ["30", "12"]
    assert column("stats max(ms) as ms by @timestamp | sort @timestamp desc | limit 2", "ms") == ["30", "8"]


def test_the_order_is_that_of_the_values_where_the_sort_stands() -> None:
    query = "filter ispresent(ms) | sort ms | fields 0 - ms as ms | display ms"
    assert column(query, "ms") == ["-5", "-8", "-12", "-30"]


def test_a_limit_counts_the_rows_that_come_to_it() -> None:
    assert column("filter ispresent(user) | limit 2 | filter user = 'ann' | fields ms", "ms") == ["8"]
    assert column("sort ms | limit 3 | sort ms desc | limit 1 | fields ms", "ms") == ["8"]


def test_the_limit_of_the_request_holds_too() -> None:
    assert len(answer("fields ms | limit 3", ACCESS, limit=2)) == 2
    assert len(answer("fields ms | limit 2", ACCESS, limit=3)) == 2


def test_dedup_keeps_the_newest_of_each_and_all_that_lack_a_value() -> None:
    assert column("fields user, ms | dedup user", "ms") == ["30", "8", None, "5"]


def test_dedup_keeps_the_first_in_the_order_of_a_sort() -> None:
    assert column("filter ispresent(user) | sort ms desc | dedup user | fields ms", "ms") == ["30", "12", "5"]
    assert column("filter ispresent(user) | sort ms | dedup user, code | limit 2 | fields ms", "ms") == ["5", "8"]


def test_dedup_behind_a_limit_keeps_the_order_that_rows_have() -> None:
    query = "sort ms desc | limit 4 | dedup user | fields ms"
    assert column(f"filter ispresent(user) | {query}", "ms") == ["30", "12", "5"]
    assert column(query.replace("user", "nothing"), "ms") == ["30", "12", "8", "5"]


def test_dedup_of_what_stats_made() -> None:
    query = "filter ispresent(user) | stats count(*) as n by user | sort user | dedup n"
    assert answer(query, ACCESS) == [{"user": "ann", "n": "2"}, {"user": "bob", "n": "1"}]


# ---------------------------------------------------------------- figures


def test_what_was_scanned_and_matched_is_counted() -> None:
    running = execution("filter user = 'ann' | stats count(*) | filter 1 = 2")
    running.feed(GROUP, ACCESS)
    assert running.finish() == []
    assert (running.records_scanned, running.records_matched) == (5, 2)
    assert running.bytes_scanned == sum(len(event.text) for _, event in ACCESS)


def test_bytes_are_counted_as_utf8() -> None:
    running = execution("limit 1")
    running.feed(GROUP, events("é☃"))
    assert running.bytes_scanned == 5


# ---------------------------------------------------------------- fields that are found


def test_the_fields_of_a_message_are_its_leaves() -> None:
    text = '{"a": {"b": [1, {"c": "x"}]}, "n": null, "t": true, "e": {}}'
    assert all_fields(text) == {"a.b.0": "1", "a.b.1.c": "x", "t": "1"}
    assert all_fields("plain") == {}


def test_no_more_than_200_fields_are_found_however_deep() -> None:
    assert len(all_fields("{" + ", ".join(f'"f{n}": {n}' for n in range(300)) + "}")) == MAX_FIELDS
    deep = '{"a":' * 500 + "1" + "}" * 500
    [(name, _)] = all_fields(deep).items()
    assert name.count("a") < 100
