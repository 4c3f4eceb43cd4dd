"""`homeport-agent`: what it accepts, and what it says to someone who does not know it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from agent.config import AgentConfig, default_data_dir, parse_address, parse_attributes, parse_ports
from agent.main import main
from homeport.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """`run` configures logging for its process; this one goes on."""
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:6182", ("0.0.0.0", 6182)),
        ("[::1]:0", ("::1", 0)),
        ("off", None),
    ],
)
def test_addresses(text: str, expected: tuple[str, int] | None) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["6182", ":6182", "host:", "host:70000", "host:x"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--metrics-listen"):
        parse_address(text)


def test_attributes_and_ports() -> None:
    assert parse_attributes(["rack=a1", "ssd", "a.b/c=x=y"]) == {"rack": "a1", "ssd": "", "a.b/c": "x=y"}
    assert parse_ports(["80", "53/udp"]) == {("tcp", 80), ("udp", 53)}


@pytest.mark.parametrize("text", ["=x", "a b=c", "n" * 129, "a=" + "v" * 129, "a= v"])
def test_attributes_that_ecs_would_refuse(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--attribute"):
        parse_attributes([text])


@pytest.mark.parametrize("text", ["0", "70000", "80/sctp", "x"])
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--reserved-port"):
        parse_ports([text])


def test_settings_become_facts_of_the_host() -> None:
    config = AgentConfig(data_dir=Path("d"), memory_reserve_mib=100, attributes={"rack": "a"}, availability_zone="z1")
    settings = config.host_settings("127.0.0.1:1")
    assert (settings.reserved_memory_mib, settings.attributes, settings.availability_zone) == (100, {"rack": "a"}, "z1")
    assert settings.metrics_address == "127.0.0.1:1"


def test_the_data_directory_is_the_users_own_unless_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/homeport")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_data_dir() == Path("/home/someone/.local/share/homeport")


def test_a_host_that_has_not_joined_is_told_how(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["run", "--data-dir", str(tmp_path)])
    assert done.exit_code == 78
    assert "has not joined" in done.stderr
    assert "homeport-agent join --server" in done.stderr


def test_a_setting_that_is_wrong_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["run", "--data-dir", str(tmp_path), "--attribute", "a b=c"])
    assert done.exit_code == 78
    assert "--attribute a b=c: expected NAME=VALUE" in done.stderr


def test_a_config_file_gives_defaults_and_unknown_settings_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('attribute = ["a b=c"]\n')
    done = CliRunner().invoke(main, ["run", "--config", str(file), "--data-dir", str(tmp_path)])
    assert "--attribute a b=c" in done.stderr
    file.write_text("colour = 1\n")
    done = CliRunner().invoke(main, ["run", "--config", str(file), "--data-dir", str(tmp_path)])
    assert done.exit_code == 2
    assert "unknown setting colour" in done.stderr


def test_joining_a_server_that_is_not_there_says_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main,
        [
            *("join", "--server", "http://127.0.0.1:1", "--activation-id", "x", "--activation-code", "y"),
            *("--data-dir", str(tmp_path), "--docker-host", "unix:///nowhere.sock"),
        ],
    )
    assert done.exit_code == 1
    assert "Cannot connect to http://127.0.0.1:1" in done.stderr


def test_an_agent_host_needs_nothing_of_the_control_plane() -> None:
    foreign = ("controlplane", "botocore", "boto3", "lark", "sortedcontainers")
    program = f"import agent.main, sys; print([name for name in {foreign!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
