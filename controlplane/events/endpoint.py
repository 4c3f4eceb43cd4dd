"""Which URLs and addresses events may be sent to. Pure.

A request from the control plane reaches what its host reaches. So the addresses where clouds hand out their machines'
credentials are refused, whatever name leads there, and plain HTTP leaves no private network.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from yarl import URL

from homeport.errors import HomeportError

__all__ = ["BadEndpoint", "address_problem", "check_endpoint"]

#: AWS's metadata service over IPv6, which is no link-local address.
_METADATA: Final = frozenset({IPv6Address("fd00:ec2::254")})


class BadEndpoint(HomeportError):
    """Events can't be sent to this URL; the text says why."""


def check_endpoint(text: str) -> None:
    """Raise BadEndpoint for a URL that can't be used, as far as it can be told without resolving its host."""
    try:
        url = URL(text)
        port = url.port
    except ValueError as error:
        raise BadEndpoint(f"it is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise BadEndpoint("it must be a URL that begins with https:// or http://")
    if url.user is not None or url.password is not None:
        raise BadEndpoint("it must not have a user name or password in it: a connection has them")
    if url.raw_fragment:
        raise BadEndpoint("it must not have a fragment (#)")
    if port == 0:
        raise BadEndpoint("its port can't be 0")
    problem = address_problem(url.host, secure=url.scheme == "https")
    if problem:
        raise BadEndpoint(problem)


def address_problem(host: str, *, secure: bool) -> str:
    """Say why nothing is sent to this address; "" if something may be, or if it is a name."""
    try:
        address = _meant(ip_address(host.partition("%")[0]))
    except ValueError:
        return ""
    if address.is_link_local or address in _METADATA:
        return f"the address {address} is link-local, where clouds have their machines' metadata: nothing is sent there"
    if address.is_unspecified or address.is_multicast or address == IPv4Address("255.255.255.255"):
        return f"the address {address} is no host's"
    if not secure and address.is_global:
        return f"the address {address} is public: only https is sent there"
    return ""


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address.sixtofour or address
    return address
