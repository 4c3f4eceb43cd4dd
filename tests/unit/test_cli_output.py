import time

import pytest

from homeport.cli.output import age, mib, moment, print_table, short_id, vcpu


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (0.4, "0s"), (59, "59s"), (60, "1m"), (310, "5m10s"), (3600, "1h"), (3605, "1h"), (93784, "1d2h")],
)
def test_ages_have_two_units_at_most(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("units", "text"), [(0, "0"), (256, "0.25"), (1024, "1"), (2048, "2"), (10240, "10"), (100, "0.1")]
)
def test_cpu_units_are_shown_as_vcpus(units: int, text: str) -> None:
    assert vcpu(units) == text


@pytest.mark.parametrize(("amount", "text"), [(0, "0 MiB"), (512, "512 MiB"), (1024, "1 GiB"), (3900, "3.8 GiB")])
def test_memory_is_shown_in_the_unit_that_fits(amount: int, text: str) -> None:
    assert mib(amount) == text


def test_a_short_id_is_the_beginning_of_an_id_or_arn() -> None:
    assert short_id("0123456789abcdef0123456789abcdef") == "0123456789ab"
    assert short_id("arn:aws:ecs:r:1:task/default/0123456789abcdef") == "0123456789ab"


def test_a_table_in_a_pipe_is_plain_and_cuts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 200
    print_table(["ONE", "TWO"], [["a", long], ["[red]b[/red]", ":smile:"]])
    out = capsys.readouterr().out.splitlines()
    assert out == ["ONE           TWO", f"a             {long}", "[red]b[/red]  :smile:"]


def test_moments_are_local_times_with_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert moment(0.5) == "1970-01-01 01:00:00.500"
    finally:
        monkeypatch.undo()
        time.tzset()
