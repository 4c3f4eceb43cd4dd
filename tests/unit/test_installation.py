import random
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.config import ControlPlaneConfig
from controlplane.installation import first_access_key, resolve_identity
from controlplane.state.state import State, load_state
from homeport.arn import ArnFactory
from homeport.errors import ConfigurationError
from tests.fakes.journal import MemoryJournal


@pytest.fixture
def config(tmp_path: Path) -> ControlPlaneConfig:
    return ControlPlaneConfig(data_dir=tmp_path, listeners=())


async def test_the_identity_made_on_first_start_is_kept(config: ControlPlaneConfig) -> None:
    journal = MemoryJournal()
    first = resolve_identity(await load_state(journal), config, random.Random(1))
    again = resolve_identity(await load_state(journal), config, random.Random(2))
    assert first == again
    assert len(first.account) == 12


def test_a_given_identity_is_used_and_cannot_be_changed_afterwards(config: ControlPlaneConfig) -> None:
    state = State(MemoryJournal())
    given = replace(config, region="eu-north-1", account="123456789012")
    assert resolve_identity(state, given, random.Random(1)) == ArnFactory("eu-north-1", "123456789012")
    with pytest.raises(ConfigurationError, match="region eu-west-1 was asked for"):
        resolve_identity(state, replace(given, region="eu-west-1"), random.Random(1))


def test_the_access_key_is_private_kept_and_replaced_by_a_given_one(config: ControlPlaneConfig, tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    made = first_access_key(path, config, random.Random(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first_access_key(path, config, random.Random(2)) == made
    given = replace(config, access_key_id="A" * 16, secret_access_key="s" * 20)
    assert first_access_key(path, given, random.Random(3)).access_key_id == "A" * 16
    assert first_access_key(path, config, random.Random(4)).access_key_id == "A" * 16


def test_an_unreadable_key_file_is_an_error_that_names_it(config: ControlPlaneConfig, tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_text("{")
    with pytest.raises(ConfigurationError, match=r"credentials\.json"):
        first_access_key(path, config, random.Random(1))
