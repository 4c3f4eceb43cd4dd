from pathlib import Path

import pytest

from homeport.cli.awsfiles import config_section, section_settings, with_settings, write_profile

SETTINGS = {"region": "eu-home-1", "endpoint_url": "http://127.0.0.1:6180", "ca_bundle": None}

OTHERS = """\
# my own notes
[default]
region = eu-central-1

[profile work]   ; the company
role_arn = arn:aws:iam::123456789012:role/x
s3 =
    max_concurrent_requests = 20
    region = not-a-setting-of-the-section
"""


def test_a_new_profile_goes_behind_everything_else() -> None:
    text = with_settings(OTHERS, "profile homeport", SETTINGS)
    assert text.startswith(OTHERS)
    assert text.removeprefix(OTHERS) == (
        "\n[profile homeport]\nregion = eu-home-1\nendpoint_url = http://127.0.0.1:6180\n"
    )


def test_an_empty_file_gets_only_the_profile() -> None:
    assert with_settings("", "homeport", {"a": "1"}) == "[homeport]\na = 1\n"


def test_a_profile_in_the_middle_is_changed_in_place_and_nothing_else() -> None:
    before = "[profile homeport]\n# mine\nregion = old\noutput = json\nca_bundle = /gone.pem\n\n" + OTHERS
    after = with_settings(before, "profile homeport", SETTINGS)
    assert (
        after
        == ("[profile homeport]\n# mine\nregion = eu-home-1\noutput = json\nendpoint_url = http://127.0.0.1:6180\n\n")
        + OTHERS
    )


def test_doing_it_twice_changes_nothing() -> None:
    once = with_settings(OTHERS, "profile homeport", SETTINGS)
    assert with_settings(once, "profile homeport", SETTINGS) == once


def test_a_nested_value_goes_with_the_setting_it_belongs_to() -> None:
    before = "[p]\nold =\n    x = 1\n    y = 2\nkept =\n    z = 3\n"
    assert with_settings(before, "p", {"old": "new"}) == "[p]\nold = new\nkept =\n    z = 3\n"


def test_nested_settings_are_not_the_sections_own() -> None:
    assert section_settings(OTHERS, "profile work") == {
        "role_arn": "arn:aws:iam::123456789012:role/x",
        "s3": "",
    }
    assert section_settings(OTHERS, "profile homeport") is None


@pytest.mark.parametrize("header", ["[profile homeport]", "[ profile  homeport ]", '[profile "homeport"]'])
def test_headers_are_compared_as_aws_does(header: str) -> None:
    assert section_settings(f"{header}\nregion = x\n", "profile homeport") == {"region": "x"}


def test_the_default_profile_has_a_bare_section() -> None:
    assert config_section("default") == "default"
    assert config_section("homeport") == "profile homeport"


def test_files_are_private_and_a_symlink_is_written_through(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "config"
    real.parent.mkdir()
    real.write_text(OTHERS)
    real.chmod(0o644)
    link = tmp_path / "config"
    link.symlink_to(real)
    environ = {"AWS_CONFIG_FILE": str(link), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "new" / "credentials")}
    config, credentials = write_profile(
        "homeport", settings=SETTINGS, credentials={"aws_access_key_id": "K"}, environ=environ
    )
    assert link.is_symlink()
    assert "[profile homeport]" in real.read_text()
    assert credentials.read_text() == "[homeport]\naws_access_key_id = K\n"
    assert [path.stat().st_mode & 0o777 for path in (config, credentials)] == [0o600, 0o600]
