"""Where Loki is, and who Homeport is there: `loki+https://USER:PASSWORD@HOST:PORT/PREFIX?tenant=NAME&ca=FILE`. Pure."""

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from homeport.errors import ConfigurationError

__all__ = ["LokiAddress", "parse_address"]

_SCHEMES: Final = {"loki+http": "http", "loki+https": "https"}
_DEFAULT_PORT: Final = 3100
_OPTIONS: Final = frozenset(("tenant", "ca"))


@dataclass(frozen=True, slots=True)
class LokiAddress:
    """`url` has no slash at its end, and no password. `tenant` "": none is named. `ca` "": the system's authorities."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    tenant: str = ""
    ca: str = ""


def parse_address(url: str) -> LokiAddress:
    """Read the URL of a setting. Raises ConfigurationError, which doesn't repeat the password."""
    try:
        parts = urlsplit(url)
        scheme, host, port = _SCHEMES.get(parts.scheme), parts.hostname, parts.port
        options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ConfigurationError(f"the URL of the logs can't be read: {error}") from None
    if scheme is None:
        raise ConfigurationError(
            f"the URL of the logs begins with {parts.scheme!r}; loki+http://HOST:PORT and loki+https://HOST:PORT can be"
            " used, and no URL for logs on this machine"
        )
    if not host:
        raise ConfigurationError("the URL of the logs names no host")
    for name, values in options.items():
        if name not in _OPTIONS or len(values) > 1 or not values[0]:
            raise ConfigurationError(
                f"the URL of the logs has ?{name}; tenant=NAME and ca=FILE can be given, each once"
            )
    if parts.fragment:
        raise ConfigurationError("the URL of the logs has a fragment (#), which means nothing there")
    bracketed = f"[{host}]" if ":" in host else host
    return LokiAddress(
        url=f"{scheme}://{bracketed}:{port or _DEFAULT_PORT}{parts.path.rstrip('/')}",
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tenant=options.get("tenant", [""])[0],
        ca=options.get("ca", [""])[0],
    )
