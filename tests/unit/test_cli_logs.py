"""`homeport logs` without a control plane: how lines look, and how a reader that is cut off goes on."""

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any, cast

import pytest

from homeport.cli.client import Client
from homeport.cli.errors import CannotConnect, CliError
from homeport.cli.loglines import Printer
from homeport.cli.logstream import stream_logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def line(text: str, number: int = 1, *, task: str = "0123456789abcdef", **members: Any) -> dict[str, Any]:
    given = {"at": float(number), "stream": "stdout", "text": text, "task": task, "container": "web", "number": number}
    return {**given, **members}


# ---------------------------------------------------------------- how lines look


def on_terminal(*lines: dict[str, Any], prefix: bool = False) -> str:
    """What a terminal is given."""
    with redirect_stdout(Terminal()) as out:
        printer = Printer(prefix=prefix)
        for each in lines:
            printer.line(each)
    return out.getvalue()


@pytest.fixture(autouse=True)
def _no_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)


def test_a_task_has_one_colour_on_a_terminal() -> None:
    shown = on_terminal(line("a", task="0" * 32), line("b", task="1" * 32), line("c", task="0" * 32), prefix=True)
    first, second, third = (each.partition("web/")[0] for each in shown.splitlines())
    assert first == third != second
    assert first.startswith("\x1b[")
    assert shown.splitlines()[0].endswith("web/00000000\x1b[0m a")


def test_what_was_looked_for_and_gaps_stand_out_on_a_terminal() -> None:
    found = line("say no and no", matches=[[4, 6], [11, 13], [13, 13]])
    red = "\x1b[1;31mno\x1b[0m"
    assert on_terminal(found, line("lost", stream="gap")) == f"say {red} and {red}\n\x1b[31m-- lost --\x1b[0m\n"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_declined(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert on_terminal(line("plain"), prefix=True) == "web/01234567 plain\n"


def test_each_line_of_an_event_is_prefixed(capsys: pytest.CaptureFixture[str]) -> None:
    Printer(prefix=True).line(line("Error\n  at main\n", stream="stderr"))
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "web/01234567 Error\nweb/01234567   at main\n")


# ---------------------------------------------------------------- going on


class Scripted:
    """A client whose answers are scripted: documents, then an error, or the end."""

    def __init__(self, *answers: list[dict[str, Any] | CliError]) -> None:
        self._answers = list(answers)
        self.sent: list[dict[str, Any] | None] = []

    def lines(
        self, _: str, query: dict[str, str], *, follow: bool, document: dict[str, Any] | None
    ) -> Iterator[dict[str, Any]]:
        assert query.get("resumable") == ("true" if follow else None)
        self.sent.append(document)
        for item in self._answers.pop(0):
            if isinstance(item, CliError):
                raise item
            yield item


def read(client: Scripted, monkeypatch: pytest.MonkeyPatch, *, follow: bool = True) -> None:
    monkeypatch.setattr("homeport.cli.absence._PAUSES_S", (0.0,))
    stream_logs(cast("Client", client), {"task": "t"}, Printer(), follow=follow)


AWAY = CannotConnect("away")
STOPPING = CliError("The control plane is stopping.", code="ServiceUnavailableException")
STANDING = {"began": 5.0, "marks": [["a", "web", 1.0, 3], ["b", "web", 1.0, 7]]}


def test_a_reader_that_is_cut_off_goes_on_behind_what_it_has_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Scripted(
        [STANDING, line("one", 4, task="a"), line("two", 1, task="c"), AWAY], [STOPPING], [line("three", 2, task="c")]
    )
    read(client, monkeypatch)
    shown = capsys.readouterr()
    assert shown.out == "one\ntwo\nthree\n"
    assert shown.err.count("the control plane is away") == 1
    behind = {"began": 5.0, "marks": [["a", "web", 4.0, 4], ["b", "web", 1.0, 7], ["c", "web", 1.0, 1]]}
    assert client.sent == [None, behind, behind]


@pytest.mark.parametrize(
    ("answer", "follow"),
    [
        ([AWAY], True),  # it was never there
        ([line("one"), AWAY], False),
        ([STANDING, CannotConnect("refused", code="SignatureDoesNotMatch")], True),
        ([STANDING, CliError("gone")], True),
    ],
)
def test_what_waiting_does_not_heal_is_an_error(
    monkeypatch: pytest.MonkeyPatch, answer: list[dict[str, Any] | CliError], follow: bool
) -> None:
    with pytest.raises(CliError):
        read(Scripted(answer), monkeypatch, follow=follow)


def test_a_log_that_breaks_off_says_why(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CliError, match="The log broke off: the Engine went away"):
        read(Scripted([STANDING, {"note": "mind the gap"}, {"error": "the Engine went away"}]), monkeypatch)
    assert capsys.readouterr().err == "homeport: mind the gap\n"
