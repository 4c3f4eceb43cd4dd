"""When cron, rate and at expressions are due: AWS's dialect, time zones and the days on which clocks change."""

import re
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.schedules.cron import parse_cron
from controlplane.schedules.timetable import fires_at, next_due, parse_expression, parse_zone, upcoming
from controlplane.state.schedule_records import Timetable

#: Another test may have the machine meanwhile.
PATIENT = settings(deadline=None)


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=parse_zone(zone)).timestamp()


def walls(expression: str, start: str, count: int = 3) -> list[str]:
    """The next wall-clock times of a cron expression, to the minute."""
    found = islice(parse_cron(expression).after(datetime.fromisoformat(start)), count)
    return [moment.isoformat(timespec="minutes") for moment in found]


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        ("0 10 * * ? *", "2026-11-22T09:00", ["2026-11-22T10:00", "2026-11-23T10:00", "2026-11-24T10:00"]),
        ("15 12 * * ? *", "2026-11-22T12:15", ["2026-11-23T12:15", "2026-11-24T12:15", "2026-11-25T12:15"]),
        ("0 18 ? * MON-FRI *", "2026-11-20T18:00", ["2026-11-23T18:00", "2026-11-24T18:00", "2026-11-25T18:00"]),
        ("0 18 ? * 2-6 *", "2026-11-20T18:00", ["2026-11-23T18:00", "2026-11-24T18:00", "2026-11-25T18:00"]),
        ("0 8 1 * ? *", "2026-11-22T00:00", ["2026-12-01T08:00", "2027-01-01T08:00", "2027-02-01T08:00"]),
        ("0/15 * * * ? *", "2026-11-22T15:00", ["2026-11-22T15:15", "2026-11-22T15:30", "2026-11-22T15:45"]),
        ("0/5 8-17 ? * mon-fri *", "2026-11-20T17:54", ["2026-11-20T17:55", "2026-11-23T08:00", "2026-11-23T08:05"]),
        ("30 0/2 * * ? *", "2026-11-22T20:31", ["2026-11-22T22:30", "2026-11-23T00:30", "2026-11-23T02:30"]),
        # L: the last day of the month; in day-of-week the last of the week, or with a day the last such of the month.
        ("0 0 L * ? *", "2028-01-31T00:00", ["2028-02-29T00:00", "2028-03-31T00:00", "2028-04-30T00:00"]),
        ("0 0 LW * ? *", "2027-01-01T00:00", ["2027-01-29T00:00", "2027-02-26T00:00", "2027-03-31T00:00"]),
        ("0 0 ? * L *", "2026-11-22T00:00", ["2026-11-28T00:00", "2026-12-05T00:00", "2026-12-12T00:00"]),
        ("0 0 ? * 6L *", "2026-11-22T00:00", ["2026-11-27T00:00", "2026-12-25T00:00", "2027-01-29T00:00"]),
        ("0 0 ? * FRIL *", "2026-11-22T00:00", ["2026-11-27T00:00", "2026-12-25T00:00", "2027-01-29T00:00"]),
        # W: the weekday nearest to a day, never in another month. 1 August 2026 is a Saturday, 1 November a Sunday.
        ("0 8 1W * ? *", "2026-07-31T00:00", ["2026-08-03T08:00", "2026-09-01T08:00", "2026-10-01T08:00"]),
        ("0 8 1W 11 ? *", "2026-07-31T00:00", ["2026-11-02T08:00", "2027-11-01T08:00", "2028-11-01T08:00"]),
        ("0 8 15W * ? *", "2026-08-01T00:00", ["2026-08-14T08:00", "2026-09-15T08:00", "2026-10-15T08:00"]),
        ("0 8 31W 1-5 ? *", "2026-01-01T00:00", ["2026-01-30T08:00", "2026-03-31T08:00", "2026-05-29T08:00"]),
        # #: the n-th such day of the month.
        ("0 0 ? * 2#1 *", "2026-11-22T00:00", ["2026-12-07T00:00", "2027-01-04T00:00", "2027-02-01T00:00"]),
        ("0 0 ? * THU#5 *", "2026-11-22T00:00", ["2026-12-31T00:00", "2027-04-29T00:00", "2027-07-29T00:00"]),
        # Lists, steps, ranges over the end.
        ("0 0 ? * FRI-MON *", "2026-11-22T00:00", ["2026-11-23T00:00", "2026-11-27T00:00", "2026-11-28T00:00"]),
        ("0 0 ? * 2/2 *", "2026-11-22T00:00", ["2026-11-23T00:00", "2026-11-25T00:00", "2026-11-27T00:00"]),
        ("0 0 ? * */7 *", "2026-11-22T00:00", ["2026-11-29T00:00", "2026-12-06T00:00", "2026-12-13T00:00"]),
        ("30-30 13-13 ? * 2,4,6 *", "2026-11-22T00:00", ["2026-11-23T13:30", "2026-11-25T13:30", "2026-11-27T13:30"]),
        ("0 22-1 * * ? *", "2026-11-22T22:30", ["2026-11-22T23:00", "2026-11-23T00:00", "2026-11-23T01:00"]),
        ("0 0 1 JAN,JUL ? *", "2026-11-22T00:00", ["2027-01-01T00:00", "2027-07-01T00:00", "2028-01-01T00:00"]),
        # Years.
        ("0 0 1 1 ? 2030-2040/5", "2026-11-22T00:00", ["2030-01-01T00:00", "2035-01-01T00:00", "2040-01-01T00:00"]),
        ("* * 1 1 ? 2199", "2026-11-22T00:00", ["2199-01-01T00:00", "2199-01-01T00:01", "2199-01-01T00:02"]),
        ("0 0 29 2 ? 2097-2110", "2026-11-22T00:00", ["2104-02-29T00:00", "2108-02-29T00:00"]),
        ("59 23 31 12 ? *", "2199-01-01T00:00", ["2199-12-31T23:59"]),
        ("0 0 1 1 ? 2020", "2026-11-22T00:00", []),
    ],
)
def test_cron(expression: str, start: str, expected: list[str]) -> None:
    assert walls(expression, start) == expected


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("0 10 * * ?", "six fields"),
        ("0 10 * * ? * *", "six fields"),
        ("* * * * * *", "exactly one"),
        ("0 0 ? * ? *", "exactly one"),
        ("7 20 * * 1-7 *", "exactly one"),
        ("60 * * * ? *", "'60' is not a value of the field minutes"),
        ("* 24 * * ? *", "'24' is not a value of the field hours"),
        ("0 0 0 * ? *", "'0' is not a value of the field day-of-month"),
        ("0 0 1 13 ? *", "'13' is not a value of the field month"),
        ("0 0 ? * 0 *", "'0' is not a value of the field day-of-week"),
        ("0 0 ? * 8L *", "'8' is not a value of the field day-of-week"),
        ("0 0 ? * MON#6 *", "day-of-week"),
        ("0 0 ? * 2#1,3#1 *", "day-of-week"),
        ("0 0 ? * -1 *", "day-of-week"),
        ("0 0 1W,15W * ? *", "day-of-month"),
        ("0 0 32W * ? *", "'32' is not a value"),
        ("0 0 31W 2,4 ? *", "none of its months has a day 31"),
        ("0 0 31 2 ? *", "can't be used"),
        ("0/0 * * * ? *", "minutes"),
        ("*-5 * * * ? *", "minutes"),
        ("5, * * * ? *", "minutes"),
        ("0 0 1 1 ? 1969", "'1969' is not a value of the field year"),
        ("0 0 1 1 ? 2200", "'2200' is not a value of the field year"),
        ("0 0 1 1 ? ?", "year"),
    ],
)
def test_cron_that_is_refused_says_why(expression: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_expression(f"cron({expression})")


@PATIENT
@given(st.text("0123456789*?/-,#LWFRIMON ", max_size=30))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    try:
        outcome = parse_expression(f"cron({text})") is not None
    except ValueError as error:
        outcome = bool(str(error))
    assert outcome


@PATIENT
@given(st.integers(1, 31), st.dates(date(1990, 1, 1), date(2150, 1, 1)))
def test_the_nearest_weekday_is_one_and_near(day: int, start: date) -> None:
    begin = datetime.combine(start, time())
    moment = next(parse_cron(f"0 12 {day}W * ? *").after(begin))
    assert moment.weekday() < 5
    target = moment.replace(day=day)  # the day is one of the same month
    assert abs(moment - target) <= timedelta(days=2)
    if target.weekday() < 5:
        assert moment == target


# ---------------------------------------------------------------- zones


@pytest.mark.parametrize(
    ("expression", "zone", "start", "expected"),
    [
        # Spring: 02:30 on 28 March 2027 doesn't exist in Berlin, and is skipped.
        (
            "cron(30 2 * * ? *)",
            "Europe/Berlin",
            "2027-03-27T00:00",
            ["2027-03-27T01:30Z", "2027-03-29T00:30Z", "2027-03-30T00:30Z"],
        ),
        # Autumn: 02:30 on 31 October 2027 comes twice, and runs the first time only.
        (
            "cron(30 2 * * ? *)",
            "Europe/Berlin",
            "2027-10-30T12:00",
            ["2027-10-31T00:30Z", "2027-11-01T01:30Z", "2027-11-02T01:30Z"],
        ),
        # Every half hour: the skipped hour has none; of the repeated one, the first has them.
        (
            "cron(0/30 * * * ? *)",
            "Europe/Berlin",
            "2027-03-28T01:15",
            ["2027-03-28T00:30Z", "2027-03-28T01:00Z", "2027-03-28T01:30Z"],
        ),
        (
            "cron(0/30 * * * ? *)",
            "Europe/Berlin",
            "2027-10-31T02:15",
            ["2027-10-31T00:30Z", "2027-10-31T02:00Z", "2027-10-31T02:30Z"],
        ),
        # Half an hour of difference, on the other half of the world.
        (
            "cron(15 2 * * ? *)",
            "Australia/Lord_Howe",
            "2027-10-02T00:00",
            ["2027-10-01T15:45Z", "2027-10-03T15:15Z", "2027-10-04T15:15Z"],
        ),
        ("cron(0 9 * * ? *)", "Asia/Kolkata", "2027-01-01T00:00", ["2027-01-01T03:30Z", "2027-01-02T03:30Z"]),
        # Clocks that jump over midnight, and a day that never was.
        ("cron(0 0 * * ? *)", "America/Asuncion", "2023-09-30T12:00", ["2023-10-02T03:00Z", "2023-10-03T03:00Z"]),
        ("cron(0 12 30 * ? *)", "Pacific/Apia", "2011-11-30T13:00", ["2012-01-29T22:00Z", "2012-03-29T22:00Z"]),
    ],
)
def test_cron_on_the_days_when_clocks_change(expression: str, zone: str, start: str, expected: list[str]) -> None:
    due = upcoming(Timetable(expression=expression, timezone=zone), at(start, zone), len(expected))
    found = [datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%MZ") for moment in due]
    assert found == expected


def test_a_rate_counts_elapsed_time_whatever_the_clocks_do() -> None:
    start = at("2027-03-27T12:00", "Europe/Berlin")
    timetable = Timetable(expression="rate(1 day)", timezone="Europe/Berlin", anchor_at=start)
    assert upcoming(timetable, start, 2) == [start + 86400, start + 2 * 86400]
    assert next_due(timetable, start - 1) == start


def test_a_one_time_schedule_is_due_once_in_its_zone_and_never_lost() -> None:
    timetable = Timetable(expression="at(2027-03-28T02:30:00)", timezone="Europe/Berlin", end_at=5.0)
    due = at("2027-03-28T01:30")  # 02:30 without the change of clocks
    assert upcoming(timetable, 0.0, 3) == [due]
    assert next_due(timetable, due) is None


def test_start_and_end_are_included() -> None:
    start, end = at("2027-01-01T10:00"), at("2027-01-01T12:00")
    hourly = Timetable(expression="cron(0 * * * ? *)", start_at=start, end_at=end)
    assert upcoming(hourly, 0.0, 9) == [start, start + 3600, end]
    rate = Timetable(expression="rate(1 hour)", start_at=start, end_at=end, anchor_at=start)
    assert upcoming(rate, 0.0, 9) == [start, start + 3600, end]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("every day", "must be cron"),
        ("rate(0 minutes)", "positive"),
        ("rate(5 weeks)", "minutes, hours or days"),
        ("rate(5minutes)", "positive"),
        ("at(2027-01-01)", "yyyy-mm-dd"),
        ("at(2027-02-30T00:00:00)", "day"),
        ("at(2027-01-01T00:00:00Z)", "yyyy-mm-dd"),
        ("cron()", "six fields"),
    ],
)
def test_expressions_that_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_expression(text)


@pytest.mark.parametrize("text", ["rate(1 minutes)", "rate(2 minute)"])
def test_rules_want_the_right_plural(text: str) -> None:
    assert parse_expression(text) in (60, 120)
    with pytest.raises(ValueError, match="after 1"):
        parse_expression(text, strict_plural=True)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "/etc/localtime"])
def test_zones_that_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        parse_zone(name)


@PATIENT
@given(st.floats(0, 4e9), st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]))
def test_due_times_ascend_and_are_behind_the_moment_asked_for(moment: float, zone: str) -> None:
    timetable = Timetable(expression="cron(7/13 * * * ? *)", timezone=zone)
    found = upcoming(timetable, moment, 12)
    assert found == sorted(set(found))
    assert found[0] > moment
    # Going on from any of them gives the rest: nothing is left out, nothing comes twice.
    assert upcoming(timetable, found[3], 8) == found[4:]


@PATIENT
@given(st.floats(0, 4e9), st.floats(0, 86400))
def test_the_moment_in_a_window_is_within_it_and_always_the_same(due: float, window_s: float) -> None:
    timetable = Timetable(expression="rate(1 day)", window_s=window_s)
    moment = fires_at(timetable, "schedule/default/job", due)
    assert due <= moment <= due + window_s
    assert moment == fires_at(timetable, "schedule/default/job", due)


def test_schedules_are_spread_over_their_window() -> None:
    timetable = Timetable(expression="rate(1 day)", window_s=100.0)
    moments = [fires_at(timetable, f"schedule/default/{number}", 0.0) for number in range(200)]
    for quarter in range(4):
        assert sum(quarter * 25 <= moment < quarter * 25 + 25 for moment in moments) > 25
