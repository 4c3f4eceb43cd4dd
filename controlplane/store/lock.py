"""One process per data directory: a lock file that the kernel releases when its holder dies, however it dies."""

import fcntl
import os
from pathlib import Path

from homeport.errors import ConfigurationError

__all__ = ["FileLock"]


class FileLock:
    """An exclusive lock on `path`. The file stays behind, empty of meaning, when the lock is released."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock at once.

        Raises ConfigurationError, naming the directory and the holder's process id, if someone has it.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise ConfigurationError(
                f"the data directory {self._path.parent} is in use by another control plane (process {holder}); "
                "stop that one first, or give this one a --data-dir of its own"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; quietly nothing if it isn't held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "FileLock":
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
