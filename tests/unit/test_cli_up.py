"""What `homeport up` understands, without starting anything."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from homeport.cli import up as up_module
from homeport.cli.dockercheck import why_no_docker
from homeport.cli.group import cli
from homeport.cli.sample import job_definition, next_steps, web_definition
from homeport.cli.settings import UpSettings

TASK = {
    "id": "0123456789abcdef0123456789abcdef",
    "containers": [{"runtimeId": "f" * 64, "ports": [{"hostPort": 8081, "containerPort": 8080}]}],
}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[UpSettings]:
    """The settings that would have been run."""
    runs: list[UpSettings] = []
    monkeypatch.setattr(up_module, "run_installation", runs.append)
    for name in ("HOMEPORT_DATA_DIR", "HOMEPORT_LISTEN", "HOMEPORT_REGION", "HOMEPORT_ACCOUNT_ID", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)
    return runs


def invoke(*arguments: str, code: int = 0, environment: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(cli, ["up", *arguments], env=environment)
    assert result.exit_code == code, result.output
    return result


def test_without_flags_everything_is_left_to_the_daemons(started: list[UpSettings]) -> None:
    invoke()
    (settings,) = started
    assert settings == UpSettings(data_dir=Path.cwd() / ".homeport", docker_host="unix:///var/run/docker.sock")


def test_flags_win_over_environment_and_environment_over_the_file(started: list[UpSettings], tmp_path: Path) -> None:
    file = tmp_path / "up.toml"
    file.write_text('region = "f"\naccount = "1"\nlisten = "127.0.0.1:1"\ndata-dir = "/f"\nsample = true\n')
    environment = {"HOMEPORT_REGION": "e", "HOMEPORT_ACCOUNT_ID": "2", "DOCKER_HOST": "tcp://e:1"}
    invoke("--config", str(file), "--region", "flag", environment=environment)
    (settings,) = started
    assert (settings.region, settings.account, settings.docker_host) == ("flag", "2", "tcp://e:1")
    assert (settings.listen, settings.data_dir, settings.sample) == (("127.0.0.1:1",), Path("/f"), True)


@pytest.mark.parametrize(
    ("content", "text"), [("reigon = 1", "unknown setting reigon"), ("x = ", "can't read"), ("sample = 'x'", "sample")]
)
def test_a_file_that_can_not_be_used_is_refused(
    started: list[UpSettings], tmp_path: Path, content: str, text: str
) -> None:
    (tmp_path / "up.toml").write_text(content)
    assert text in invoke("--config", str(tmp_path / "up.toml"), code=2).stderr
    assert started == []


def test_half_a_key_is_refused(started: list[UpSettings]) -> None:
    said = invoke("--secret-access-key", "s", code=78).stderr
    assert said == "homeport: --access-key-id and --secret-access-key belong together: give both or neither.\n"


async def test_why_there_is_no_docker_is_said_in_a_sentence(tmp_path: Path) -> None:
    socket = f"unix://{tmp_path}/docker.sock"
    assert await why_no_docker(socket) == f"There is no Docker at {socket}."
    (tmp_path / "docker.sock").touch()
    assert await why_no_docker(socket) == f"There is no Docker at {socket}."
    said = await why_no_docker("tcp://127.0.0.1:9")
    assert said is not None
    assert said.startswith("Docker at tcp://127.0.0.1:9 can't be reached: ")
    assert await why_no_docker("ssh://host") is None


def steps(**how: Any) -> str:
    arguments = {
        "homeport": "homeport",
        "data_dir": ".homeport",
        "agent_pid": 1,
        "control_plane_pid": 2,
        "aws": "aws",
    }
    return "\n".join(next_steps(TASK, **{**arguments, **how}))


def test_the_next_steps_name_what_runs() -> None:
    text = steps()
    for command in (
        "curl http://127.0.0.1:8081/ ",
        "homeport story 0123456789ab ",
        "homeport login --data-dir .homeport ",
        "docker kill ffffffffffff ",
        "kill -9 1 ",
        "kill -9 2 ",
    ):
        assert f"    {command}" in text
    assert "isn't installed" not in text
    assert "apt-get install awscli" in steps(aws=None)


def test_another_data_directory_is_in_every_command_that_needs_it() -> None:
    text = steps(data_dir="my dir", homeport=".venv/bin/homeport")
    assert "    .venv/bin/homeport ps --data-dir 'my dir' " in text
    assert text.count("--data-dir 'my dir'") == 11


def test_the_sample_leaves_coming_back_to_its_service_and_its_job_takes_no_port() -> None:
    (web,) = web_definition(8080)["containerDefinitions"]
    assert "restartPolicy" not in web  # its service replaces it
    (job,) = job_definition()["containerDefinitions"]
    assert "portMappings" not in job
