"""An image registry on loopback, for tests that pull for real."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.harness import Daemon, eventually
from tests.packages import install_debian_package, run

__all__ = ["publish", "registry"]

_CONFIGURATION = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextmanager
def registry() -> Iterator[str]:
    """Yield the HOST:PORT of an empty registry; the Engine speaks plain HTTP to loopback."""
    install_debian_package("docker-registry", "docker-registry")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="homeport-registry-") as directory:
        configuration = Path(directory) / "config.yml"
        configuration.write_text(_CONFIGURATION.format(root=f"{directory}/data", port=port))
        daemon = Daemon("registry", ["docker-registry", "serve", str(configuration)], Path(directory) / "registry.log")
        try:
            eventually(lambda: _accepts(port))
            yield f"127.0.0.1:{port}"
        finally:
            daemon.stop()


def _accepts(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def publish(image: str, name: str, at: str) -> str:
    """Push `image` as `name`, remove the local tag, and return the reference to pull."""
    reference = f"{at}/{name}"
    run("docker", "tag", image, reference)
    run("docker", "push", reference)
    run("docker", "image", "rm", reference)
    return reference
