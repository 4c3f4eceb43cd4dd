"""Who this installation is: its account, region and first access key, made on first start and kept.

Account and region are part of every ARN that was ever given out, so they are state and can't change afterwards. The
access key is a file, mode 0600, that the CLI on this machine reads; giving another one replaces it.
"""

import random
import string
from pathlib import Path
from typing import Final

import msgspec

from controlplane.config import DEFAULT_REGION, ControlPlaneConfig
from controlplane.state.records import SettingRecord
from controlplane.state.state import State
from homeport.arn import ArnFactory
from homeport.daemon import write_private
from homeport.datadir import CredentialsFile
from homeport.errors import ConfigurationError

__all__ = ["first_access_key", "resolve_identity"]

_IDENTITY: Final = "identity"
#: What AWS's own keys are made of; 80 and 238 random bits.
_KEY_ALPHABET: Final = string.ascii_uppercase + "234567"
_SECRET_ALPHABET: Final = string.ascii_letters + string.digits


def resolve_identity(state: State, config: ControlPlaneConfig, source: random.Random) -> ArnFactory:
    """Return account and region: those kept, else those configured, else new ones, which are kept from now on.

    Raises ConfigurationError if the configuration contradicts what earlier ARNs already carry.
    """
    kept = state.settings.get(_IDENTITY)
    if kept is None:
        value = {
            "region": config.region or DEFAULT_REGION,
            "account": config.account or str(source.randrange(10**11, 10**12)),
        }
        with state.transaction() as transaction:
            transaction.put(SettingRecord(name=_IDENTITY, value=value))
    else:
        value = kept.value
        for name, asked in (("region", config.region), ("account", config.account)):
            if asked is not None and asked != value[name]:
                raise ConfigurationError(
                    f"{name} {asked} was asked for, but this data directory was made with {value[name]}, which is "
                    f"part of every ARN in it; leave the setting out, or use another --data-dir"
                )
    return ArnFactory(value["region"], value["account"])


def first_access_key(path: Path, config: ControlPlaneConfig, source: random.Random) -> CredentialsFile:
    """Return the access key: the configured one, else the one in `path`, else a new one. The file has it afterwards.

    Raises ConfigurationError if the file can't be read.
    """
    if config.access_key_id is not None and config.secret_access_key is not None:
        key = CredentialsFile(access_key_id=config.access_key_id, secret_access_key=config.secret_access_key)
        if not path.exists() or _read(path) != key:
            _write(path, key)
        return key
    if path.exists():
        return _read(path)
    key = CredentialsFile(
        access_key_id="HPKA" + "".join(source.choices(_KEY_ALPHABET, k=16)),
        secret_access_key="".join(source.choices(_SECRET_ALPHABET, k=40)),
    )
    _write(path, key)
    return key


def _read(path: Path) -> CredentialsFile:
    try:
        return msgspec.json.decode(path.read_bytes(), type=CredentialsFile)
    except (OSError, msgspec.DecodeError) as err:
        raise ConfigurationError(f"can't read the access key in {path}: {err}") from err


def _write(path: Path, key: CredentialsFile) -> None:
    write_private(path, msgspec.json.format(msgspec.json.encode(key)) + b"\n")
