from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from homeport.cli.connection import find_data_dir, resolve
from homeport.cli.errors import CliError, NotFound
from homeport.datadir import ControlPlaneDir, CredentialsFile, EndpointFile


def data_dir(path: Path, url: str = "http://127.0.0.1:1", ca_bundle: str | None = None) -> Path:
    paths = ControlPlaneDir(path)
    paths.root.mkdir(parents=True)
    endpoint = EndpointFile(
        local_url=url, network_url=None, region="eu-home-1", account="1" * 12, ca_bundle=ca_bundle, ca_hash=None, pid=1
    )
    paths.endpoint.write_bytes(msgspec.json.encode(endpoint))
    key = CredentialsFile(access_key_id="K-" + path.name, secret_access_key="S")
    paths.credentials.write_bytes(msgspec.json.encode(key))
    return path


class Profiles:
    """AWS profiles by name; remembers which were asked for."""

    def __init__(self, **profiles: Mapping[str, str]) -> None:
        self.profiles = profiles
        self.asked: list[str] = []

    def __call__(self, name: str) -> Mapping[str, Any]:
        self.asked.append(name)
        return self.profiles.get(name, {})


COMPLETE = {"endpoint_url": "http://profile:1", "aws_access_key_id": "PK", "aws_secret_access_key": "PS"}
ENVIRON = {"AWS_ENDPOINT_URL": "http://env:1", "AWS_ACCESS_KEY_ID": "EK", "AWS_SECRET_ACCESS_KEY": "ES"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and home without any data directory."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def source(**how: Any) -> str:
    arguments = {"data_dir": None, "profile": None, "environ": {}, "read_profile": Profiles(), **how}
    return resolve(**arguments).source


def test_a_data_directory_gives_everything(tmp_path: Path) -> None:
    path = data_dir(tmp_path / "a", "https://127.0.0.1:1", "/ca.pem")
    found = resolve(data_dir=path, profile=None, environ=ENVIRON, read_profile=Profiles())
    assert (found.endpoint_url, found.region, found.access_key_id, found.secret_access_key, found.ca_bundle) == (
        "https://127.0.0.1:1", "eu-home-1", "K-a", "S", "/ca.pem",
    )  # fmt: skip


def test_the_order_is_flag_variable_endpoint_profile_usual_place(elsewhere: Path) -> None:
    named, usual = data_dir(elsewhere / "named"), data_dir(elsewhere / "cwd" / ".homeport")
    profiles = Profiles(homeport=COMPLETE, other=COMPLETE)
    environ = {**ENVIRON, "HOMEPORT_DATA_DIR": str(named)}
    assert source(data_dir=usual, profile="other", environ=environ, read_profile=profiles) == f"data directory {usual}"
    assert source(profile="other", environ=environ, read_profile=profiles) == "AWS profile other"
    assert source(environ=environ, read_profile=profiles) == f"data directory {named}"
    assert source(environ=ENVIRON, read_profile=profiles) == "environment variable AWS_ENDPOINT_URL"
    assert source(environ={"AWS_PROFILE": "other"}, read_profile=profiles) == "AWS profile other"
    assert source(read_profile=profiles) == "AWS profile homeport"
    assert source() == f"data directory {elsewhere / 'cwd' / '.homeport'}"


def test_a_profile_without_endpoint_leads_to_aws_and_is_passed_over() -> None:
    profiles = Profiles(work={"aws_access_key_id": "A", "aws_secret_access_key": "B"}, homeport=COMPLETE)
    assert source(environ={"AWS_PROFILE": "work"}, read_profile=profiles) == "AWS profile homeport"
    assert profiles.asked == ["work", "homeport"]


def test_a_profile_asked_for_by_name_must_be_usable() -> None:
    profiles = Profiles(work={"region": "eu-central-1"})
    with pytest.raises(CliError, match="The AWS profile work has no endpoint_url"):
        source(profile="work", read_profile=profiles)
    with pytest.raises(NotFound, match="There is no AWS profile named gone"):
        source(profile="gone", read_profile=profiles)


def test_an_endpoint_without_keys_takes_those_of_the_profile_or_says_what_is_missing() -> None:
    environ = {"AWS_ENDPOINT_URL": "http://env:1"}
    found = resolve(data_dir=None, profile=None, environ=environ, read_profile=Profiles(homeport=COMPLETE))
    assert (found.endpoint_url, found.access_key_id) == ("http://env:1", "PK")
    with pytest.raises(CliError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not"):
        source(environ=environ)


def test_without_anything_the_next_step_is_named() -> None:
    with pytest.raises(NotFound) as caught:
        source()
    assert "homeport up" in caught.value.hint


def test_a_directory_where_nothing_was_started_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        source(data_dir=tmp_path / "empty")
    assert caught.value.hint == f"Start one: homeport up --data-dir {tmp_path / 'empty'}"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = data_dir(tmp_path / "a")
    ControlPlaneDir(path).credentials.write_text("{")
    with pytest.raises(CliError, match="credentials"):
        source(data_dir=path)


def test_find_data_dir_takes_the_nearest_that_was_used(elsewhere: Path) -> None:
    assert find_data_dir(None, {}) is None
    home = data_dir(elsewhere / "home" / ".local" / "share" / "homeport")
    assert find_data_dir(None, {}) == home
    here = data_dir(elsewhere / "cwd" / ".homeport")
    assert find_data_dir(None, {}) == here
    assert find_data_dir(None, {"HOMEPORT_DATA_DIR": "/x"}) == Path("/x")
    assert find_data_dir(Path("/y"), {"HOMEPORT_DATA_DIR": "/x"}) == Path("/y")
