"""What the agent can be told, and the rules for it. Reading flags, environment and files is `main`'s."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, cast

from agent.host import HostSettings
from agent.retention import DEFAULT_CLEANUP_AFTER_S
from homeport.errors import ConfigurationError

__all__ = [
    "DEFAULT_MEMORY_RESERVE_MIB",
    "DEFAULT_METRICS_LISTEN",
    "AgentConfig",
    "default_data_dir",
    "parse_address",
    "parse_attributes",
    "parse_ports",
]

DEFAULT_METRICS_LISTEN: Final = "0.0.0.0:6182"  # Prometheus runs elsewhere, as a rule
#: Kept for the operating system, Docker and the agent itself.
DEFAULT_MEMORY_RESERVE_MIB: Final = 256

#: ECS's limits on attributes.
_NAME_MAX: Final = 128
_VALUE_MAX: Final = 128
_HIGHEST_PORT: Final = 65535

Port = tuple[Literal["tcp", "udp"], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Everything that `serve` needs to know."""

    data_dir: Path
    #: None: DOCKER_HOST, else Docker's usual socket.
    docker_host: str | None = None
    #: (host, port) of the Prometheus endpoint; port 0: any free one. None: none.
    metrics_listen: tuple[str, int] | None = None
    memory_reserve_mib: int = DEFAULT_MEMORY_RESERVE_MIB
    cpu_reserve_units: int = 0
    reserved_ports: frozenset[Port] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=dict)
    availability_zone: str | None = None
    cleanup_after_s: float = DEFAULT_CLEANUP_AFTER_S

    def host_settings(self, metrics_address: str) -> HostSettings:
        """Return what of this goes into the facts. `metrics_address`: where metrics are served, "" if nowhere."""
        return HostSettings(
            reserved_memory_mib=self.memory_reserve_mib,
            reserved_cpu_units=self.cpu_reserve_units,
            reserved_ports=self.reserved_ports,
            availability_zone=self.availability_zone,
            attributes=self.attributes,
            metrics_address=metrics_address,
        )


def default_data_dir() -> Path:
    """Return /var/lib/homeport for root, else a directory of the user's own."""
    return Path("/var/lib/homeport") if os.geteuid() == 0 else Path.home() / ".local/share/homeport"


def parse_address(text: str) -> tuple[str, int] | None:
    """Read HOST:PORT (IPv6 addresses in brackets); None for `off`. Raises ConfigurationError."""
    if text.lower() in ("off", "none", ""):
        return None
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > _HIGHEST_PORT:
        raise ConfigurationError(f"--metrics-listen {text}: expected HOST:PORT (port 0 to 65535), or off")
    return host, int(port)


def parse_attributes(texts: Iterable[str]) -> dict[str, str]:
    """Read NAME=VALUE (or NAME alone), as ECS limits them. Raises ConfigurationError."""
    attributes: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        fits = 0 < len(name) <= _NAME_MAX and len(value) <= _VALUE_MAX
        if not fits or not all(c.isalnum() or c in "-_./\\" for c in name) or value != value.strip():
            raise ConfigurationError(
                f"--attribute {text}: expected NAME=VALUE; a name has 1 to 128 of letters, digits and - _ . / \\, "
                "a value up to 128 characters without blanks around it"
            )
        attributes[name] = value
    return attributes


def parse_ports(texts: Iterable[str]) -> frozenset[Port]:
    """Read PORT or PORT/udp. Raises ConfigurationError."""
    ports: set[Port] = set()
    for text in texts:
        number, _, protocol = text.partition("/")
        if not number.isdecimal() or not 0 < int(number) <= _HIGHEST_PORT or protocol not in ("", "tcp", "udp"):
            raise ConfigurationError(f"--reserved-port {text}: expected PORT, PORT/tcp or PORT/udp (1 to 65535)")
        ports.add((cast(Literal["tcp", "udp"], protocol or "tcp"), int(number)))
    return frozenset(ports)
