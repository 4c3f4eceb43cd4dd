"""The shell of both daemons: exit statuses, the configuration file, private files."""

import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from homeport.daemon import EXIT_CONFIG, config_option, run_daemon, write_private
from homeport.errors import ConfigurationError, JournalError


def _raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigurationError("the port is taken"), EXIT_CONFIG, "homeport-test: the port is taken\n"),
        (
            JournalError("disk full"),
            1,
            "homeport-test: disk full; stopping, so that nothing is said or done",
        ),
    ],
)
def test_a_daemon_that_cannot_go_on_says_why_in_a_line_and_leaves_with_a_status_for_systemd(
    error: Exception, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run_daemon("homeport-test", _raising(error))
    assert left.value.code == status
    assert capsys.readouterr().err.startswith(line)


def test_what_several_parts_of_a_daemon_failed_of_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    failures = ExceptionGroup("", [JournalError("disk full"), ExceptionGroup("", [JournalError("disk full")])])
    with pytest.raises(SystemExit):
        run_daemon("homeport-test", _raising(failures))
    assert capsys.readouterr().err.count("disk full") == 1


def test_a_daemon_that_ends_by_itself_leaves_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        return

    run_daemon("homeport-test", main)
    assert capsys.readouterr().err == ""


@click.command()
@config_option
@click.option("--data-dir")
@click.option("--level", default="info", envvar="LEVEL")
def _command(**options: Any) -> None:
    click.echo(f"{options['data_dir']} {options['level']}")


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('data-dir = "/file"\nlevel = "file"\n')
    run = CliRunner().invoke
    assert run(_command, ["--config", str(file)]).output == "/file file\n"
    assert run(_command, ["--config", str(file)], env={"LEVEL": "environment"}).output == "/file environment\n"
    assert run(_command, ["--config", str(file), "--data-dir", "/flag"]).output == "/flag file\n"


@pytest.mark.parametrize(("text", "complaint"), [("oops = 1", "unknown setting oops"), ("=", "can't read")])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    result = CliRunner().invoke(_command, ["--config", str(file)])
    assert result.exit_code == 2
    assert complaint in result.output


def test_a_private_file_is_whole_or_absent_and_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    write_private(path, b"secret")
    write_private(path, b"other")
    assert path.read_bytes() == b"other"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["key"]


@pytest.mark.parametrize("daemon", ["agent.main", "controlplane.main"])
def test_a_daemon_does_without_rich_and_the_command_line_can_still_draw(daemon: str) -> None:
    program = f"import {daemon}, sys; print('rich' in sys.modules); import rich.table; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
