"""However a command fails, a person reads a sentence."""

import click
import pytest
from click.testing import CliRunner, Result

from homeport.cli.errors import CannotConnect, CliError, NotFound, Unusable
from homeport.cli.options import Command
from homeport.errors import ConfigurationError


def invoke(failure: BaseException) -> Result:
    @click.command(cls=Command)
    def fail() -> None:
        """Fail."""
        raise failure

    return CliRunner().invoke(fail)


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (CliError("No.", hint="Try yes."), 1, "homeport: No.\n  Try yes.\n"),
        (NotFound("Where?"), 3, "homeport: Where?\n"),
        (CannotConnect("Nobody there."), 4, "homeport: Nobody there.\n"),
        (Unusable("That can't be."), 78, "homeport: That can't be.\n"),
        (ConfigurationError("port 0 is none"), 1, "homeport: port 0 is none\n"),
        (FileNotFoundError(2, "No such file or directory", "/x"), 1, "homeport: /x: No such file or directory\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_failure_has_its_code_and_its_sentence(failure: BaseException, code: int, said: str) -> None:
    result = invoke(failure)
    assert (result.exit_code, result.stderr, result.stdout) == (code, said, "")


def test_a_missing_library_says_what_to_install() -> None:
    result = invoke(ModuleNotFoundError("No module named 'rich'", name="rich"))
    assert result.exit_code == 1
    assert "needs the Python package rich" in result.stderr
    assert "pip install 'homeport[agent,controlplane]'" in result.stderr


def test_a_bug_is_named_and_shows_its_traceback_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOMEPORT_DEBUG", raising=False)
    result = invoke(ZeroDivisionError("division by zero"))
    assert result.stderr.startswith("homeport: This is a bug in homeport: ZeroDivisionError: division by zero\n")
    monkeypatch.setenv("HOMEPORT_DEBUG", "1")
    assert isinstance(invoke(ZeroDivisionError()).exception, ZeroDivisionError)
