"""Is a port of this machine free? Only a guess: by the time it is used, somebody else may have it."""

import socket
from contextlib import closing

from homeport.cli.errors import CliError

__all__ = ["free_port", "is_free"]

_ANY = "0.0.0.0"  # noqa: S104 - only tried


def is_free(port: int, *, host: str = _ANY) -> bool:
    """Tell whether a TCP port can be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        # As servers do: a connection of an earlier one that is still closing doesn't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def free_port(ports: range) -> int:
    """Return the first port of `ports` that is free. Raises CliError if none is."""
    for port in ports:
        if is_free(port):
            return port
    raise CliError(f"No port from {ports.start} to {ports.stop - 1} is free.")
