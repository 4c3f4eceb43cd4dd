"""What the control plane can be told, and the rules for it. Reading flags, environment and files is `main`'s."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from controlplane.logs.space import DEFAULT_LIMIT_BYTES
from homeport.errors import ConfigurationError

__all__ = [
    "DEFAULT_LISTENERS",
    "DEFAULT_REGION",
    "ControlPlaneConfig",
    "Listener",
    "check_access_key_id",
    "check_account",
    "check_region",
    "is_loopback",
    "parse_listener",
]

#: Plain HTTP for this machine, TLS for other hosts.
DEFAULT_LISTENERS: Final = ("http://127.0.0.1:6180", "https://0.0.0.0:6181")
#: A region that every tool knows; some (Terraform) refuse names they don't.
DEFAULT_REGION: Final = "us-east-1"

_REGION: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ACCOUNT: Final = re.compile(r"\d{12}")
_ACCESS_KEY_ID: Final = re.compile(r"\w{16,128}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One address the control plane listens on. Port 0: any free one."""

    scheme: Literal["http", "https"]
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneConfig:
    """Everything that `serve` needs to know. None: kept from the last start, else made."""

    data_dir: Path
    listeners: tuple[Listener, ...]
    region: str | None = None
    account: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    #: The name or address other hosts reach this machine by; None: found out.
    advertise_host: str | None = None
    heartbeat_s: float = 5.0
    history_days: float = 30.0
    #: How long DescribeTasks shows a stopped task (ECS: about an hour).
    stopped_task_retention_s: float = 3600.0
    #: Where containers' output is kept; None: on this machine.
    logs_url: str | None = None
    #: How much it may take here.
    logs_limit_bytes: int = DEFAULT_LIMIT_BYTES
    #: Ship the output of containers whose definition names no log driver, too.
    collect_logs: bool = True


def is_loopback(host: str) -> bool:
    """Tell whether an address or name reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_listener(text: str, *, insecure_http: bool = False) -> Listener:
    """Read `HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT`; IPv6 addresses in brackets.

    Without a scheme: plain HTTP on loopback, else TLS, unless `insecure_http` asks for plain HTTP by name.
    Raises ConfigurationError.
    """
    explicit = "://" in text
    parts = urlsplit(text if explicit else f"//{text}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or port is None or parts.path or parts.scheme not in ("", "http", "https"):
        raise ConfigurationError(
            f"--listen {text}: expected HOST:PORT, http://HOST:PORT or https://HOST:PORT (port 0 to 65535)"
        )
    scheme = parts.scheme if explicit else "http" if insecure_http or is_loopback(parts.hostname) else "https"
    return Listener(scheme="http" if scheme == "http" else "https", host=parts.hostname, port=port)


def check_region(region: str) -> str:
    """Return `region` if it can stand in an ARN and a signature's scope. Raises ConfigurationError."""
    if not _REGION.fullmatch(region):
        raise ConfigurationError(f"region {region!r}: expected 1 to 63 of a-z, 0-9 and inner hyphens, e.g. us-east-1")
    return region


def check_account(account: str) -> str:
    """Return `account` if it has AWS's form. Raises ConfigurationError."""
    if not _ACCOUNT.fullmatch(account):
        raise ConfigurationError(f"account id {account!r}: expected 12 digits")
    return account


def check_access_key_id(access_key_id: str) -> str:
    """Return `access_key_id` if AWS's clients accept its form. Raises ConfigurationError."""
    if not _ACCESS_KEY_ID.fullmatch(access_key_id):
        raise ConfigurationError("access key id: expected 16 to 128 letters, digits or underscores")
    return access_key_id
