"""The sockets the control plane listens on, and the URLs it is reached by."""

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psutil
from aiohttp import web

from controlplane.config import Listener, is_loopback
from controlplane.context import Endpoints
from homeport.errors import ConfigurationError

__all__ = ["BACKLOG", "Bound", "bind", "endpoints_of", "local_names", "primary_address", "site_of"]

#: Connections waiting to be accepted: a whole fleet may reconnect at once, and who is turned away here tries again only
#: after a second, then three, then seven. The kernel takes no more than its `net.core.somaxconn`.
BACKLOG: Final = 8192
_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


@dataclass(frozen=True, slots=True)
class Bound:
    """A listener whose socket is bound; `port` is the real one."""

    listener: Listener
    socket: socket.socket
    port: int

    def url(self, host: str | None = None) -> str:
        """Return the listener's URL, with another host if given."""
        name = host or self.listener.host
        return f"{self.listener.scheme}://{f'[{name}]' if ':' in name else name}:{self.port}"


def bind(listeners: Sequence[Listener]) -> list[Bound]:
    """Bind all sockets, or none.

    Raises ConfigurationError that names the address, e.g. when the port is in use.
    """
    bound: list[Bound] = []
    try:
        for listener in listeners:
            family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
            server = socket.socket(family, socket.SOCK_STREAM)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.append(Bound(listener, server, 0))
            server.bind((listener.host, listener.port))
            # With SO_REUSEADDR it is listen, not bind, that finds the port taken.
            server.listen(BACKLOG)
            bound[-1] = Bound(listener, server, server.getsockname()[1])
    except OSError as err:
        failed = bound[-1].listener
        for each in bound:
            each.socket.close()
        raise ConfigurationError(
            f"can't listen on {failed.host}:{failed.port}: {err.strerror or err}; choose another address with --listen"
        ) from err
    return bound


def primary_address() -> str:
    """Return the address this machine uses towards others; 127.0.0.1 if it has no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket only asks the routing table; nothing is sent. 192.0.2.0/24 is reserved
            # for documentation, so it is routed like any foreign address.
            probe.connect(("192.0.2.1", 9))
            address: str = probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"
        return address


def local_names(advertise_host: str | None) -> list[str]:
    """Return every name and address a certificate for this machine should carry."""
    names = {"localhost", socket.gethostname(), "127.0.0.1", "::1"}
    if advertise_host:
        names.add(advertise_host)
    for addresses in psutil.net_if_addrs().values():
        names |= {
            address.address.partition("%")[0]
            for address in addresses
            if address.family in (socket.AF_INET, socket.AF_INET6)
        }
    return sorted(names)


def endpoints_of(bound: Sequence[Bound], *, advertise_host: str | None, ca_hash: str) -> Endpoints:
    """Work out under which URLs local clients and other hosts reach these listeners."""
    local = next((b for b in bound if is_loopback(b.listener.host)), None) or bound[0]
    local_host = "127.0.0.1" if local.listener.host in _ANY else local.listener.host
    network = next((b for b in bound if not is_loopback(b.listener.host)), None)
    network_url = None
    if network is not None:
        own = primary_address() if network.listener.host in _ANY else network.listener.host
        network_url = network.url(advertise_host or own)
    tls = any(b.listener.scheme == "https" for b in bound)
    return Endpoints(local_url=local.url(local_host), network_url=network_url, ca_hash=ca_hash if tls else None)


def site_of(bound: Bound, runner: web.AppRunner, context: ssl.SSLContext) -> web.SockSite:
    """Return what serves the runner's application on a listener, with TLS of this context if it is one for https."""
    tls = context if bound.listener.scheme == "https" else None
    # A site listens anew, so that its backlog counts.
    return web.SockSite(runner, bound.socket, ssl_context=tls, backlog=BACKLOG)
