"""Log files as Docker's driver json-file writes and rotates them."""

import json
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["JsonFile", "stamp"]


def stamp(at_ns: int) -> str:
    """Return a time as the Engine writes it: without trailing zeros."""
    second = datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{at_ns % 1_000_000_000:09d}".rstrip("0")
    return f"{second}.{fraction}Z" if fraction else f"{second}Z"


class JsonFile:
    """The log of one container; as dockerd does, it rotates before it writes, once the file is large enough."""

    def __init__(self, path: Path, *, max_size: int = 16 * 1024 * 1024, max_file: int = 4) -> None:
        self.path = path
        self.max_size = max_size
        self.max_file = max_file
        self.path.touch()

    def write(self, text: str, *, at_ns: int, stream: str = "stdout") -> None:
        """Write one record; `text` with the line's end, if it is one."""
        if self.path.stat().st_size >= self.max_size:
            self.rotate()
        self.write_raw(
            json.dumps({"log": text, "stream": stream, "time": stamp(at_ns)}, separators=(",", ":")).encode() + b"\n"
        )

    def write_raw(self, data: bytes) -> None:
        """Write what may not be a record."""
        with self.path.open("ab") as file:
            file.write(data)

    def rotate(self) -> None:
        """Remove the one that is too many, then rename all others, the oldest first."""
        self._name(self.max_file - 1).unlink(missing_ok=True)
        for number in range(self.max_file - 1, 0, -1):
            before = self._name(number - 1)
            if before.exists():
                before.rename(self._name(number))
        self.path.touch()

    def remove(self) -> None:
        """Remove all files, as with the container."""
        for number in range(self.max_file):
            self._name(number).unlink(missing_ok=True)

    def _name(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path
