"""Exit with 0 if a Docker Engine answers at DOCKER_HOST (else the default socket), with 1 and the reason if not.

Uses the standard library alone: it runs before anything is installed. An address that needs more than a socket (ssh,
TLS) is tried with the `docker` client.
"""

import http.client
import os
import shutil
import socket
import subprocess
import sys
from urllib.parse import urlsplit

TIMEOUT_S = 10.0


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Open the socket; `http.client` calls this before the first request."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def _connection(address: str) -> http.client.HTTPConnection | None:
    url = urlsplit(address)
    if url.scheme == "unix":
        return _UnixConnection(url.path)
    if url.scheme in ("tcp", "http") and not os.environ.get("DOCKER_TLS_VERIFY"):
        return http.client.HTTPConnection(url.hostname or "localhost", url.port or 2375, timeout=TIMEOUT_S)
    return None


def _ping_with_client() -> str | None:
    client = shutil.which("docker")
    if client is None:
        return "it needs the docker client, which is not installed"
    done = subprocess.run([client, "version"], capture_output=True, text=True, timeout=60, check=False)
    return done.stderr.strip() if done.returncode else None


def ping(address: str) -> str | None:
    """Ask the Engine at `address` for a sign of life; return None, or why there is none."""
    connection = _connection(address)
    if connection is None:
        return _ping_with_client()
    try:
        connection.request("GET", "/_ping")
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK or not answer.getheader("Api-Version"):
        return f"something else answers there (HTTP status {answer.status})"
    return None


def main() -> int:
    """Print nothing if an Engine answers; else say on stderr where and why not."""
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    reason = ping(address)
    if reason is not None:
        sys.stderr.write(f"no Docker Engine at {address}: {reason}\n")
    return 0 if reason is None else 1


if __name__ == "__main__":
    sys.exit(main())
