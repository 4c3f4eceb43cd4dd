"""A Docker Engine of a test's own, to be killed, frozen and started again."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["OwnEngine", "own_engine"]

_START_S = 60


class OwnEngine:
    """dockerd and containerd with their own data and sockets below `directory`, whose path must be short.

    containerd is a process of its own, as on a real host: the one that dockerd would start dies with it. `enter`: a
    command that runs dockerd in a network namespace; without one it gets a new one and no bridge network, since with
    `--bridge none` a dockerd deletes the docker0 that it finds.
    """

    def __init__(self, directory: Path, *, enter: Sequence[str] = ()) -> None:
        self.directory = directory
        self._enter = tuple(enter) or ("unshare", "--net")
        self._network = () if enter else ("--bridge", "none", "--iptables=false", "--ip6tables=false")
        self.docker_host = f"unix://{directory}/d.sock"
        self._name = f"homeport-test-{secrets.token_hex(4)}"
        self._containerd = self._start_containerd()
        self._process: subprocess.Popen[bytes] | None = None

    def _start_containerd(self) -> subprocess.Popen[bytes]:
        config = self.directory / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        return self._spawn(
            "containerd", "--config", str(config), "--address", f"{self.directory}/c.sock",
            "--root", f"{self.directory}/containerd", "--state", f"{self.directory}/containerd-state",
        )  # fmt: skip

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.directory / "engine.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)

    def start(self, *, live_restore: bool = True) -> None:
        """Start dockerd; with live-restore its containers outlive it. Returns at once."""
        self._process = self._spawn(
            *self._enter, "dockerd", "--host", self.docker_host, *(("--live-restore",) if live_restore else ()),
            "--containerd", f"{self.directory}/c.sock",
            "--data-root", f"{self.directory}/data", "--exec-root", f"{self.directory}/exec",
            "--pidfile", f"{self.directory}/docker.pid", *self._network,
            "--containerd-namespace", self._name, "--containerd-plugins-namespace", f"{self._name}-plugins",
        )  # fmt: skip

    def log(self) -> str:
        return (self.directory / "engine.log").read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        """kill -9; its containers run on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_START_S)

    def stop(self) -> None:
        """SIGTERM; with live-restore its containers run on."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(_START_S)

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop both, and whatever containers are left, and remove their files."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self._process.terminate()
            self._process.wait(_START_S)
        self._containerd.terminate()
        self._containerd.wait(_START_S)
        for process in self._left_over():
            os.kill(process, signal.SIGKILL)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if (where := line.split()[1]).startswith(str(self.directory)):
                subprocess.run(["umount", "-l", where], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _left_over(self) -> Iterator[int]:
        """Shims of containers that were not removed, and the containers below them."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.directory) in path.read_text(errors="replace"):
                    process = int(path.parent.name)
                    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
                    yield from (process, *map(int, children))


@contextlib.contextmanager
def own_engine(directory: Path) -> Iterator[OwnEngine]:
    """Run an Engine inside the block."""
    engine = OwnEngine(directory)
    engine.start()
    try:
        yield engine
    finally:
        engine.close()
