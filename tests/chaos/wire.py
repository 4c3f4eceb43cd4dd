"""A network cable that is a process: `python -m tests.chaos.wire OUTER INNER SEED`, between two TAP devices.

It does what `tc netem` does, where the kernel may be without it. Each line on standard input is an order, JSON
`{"inward": {...}, "outward": {...}}` with the members of an Impairment; "inward" is towards the host. Says "laid" once
frames pass; ends with its standard input.
"""

import fcntl
import heapq
import json
import os
import selectors
import struct
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import count
from random import Random
from typing import Final

from tests.chaos.impair import CLEAN, Impairment, arrivals
from tests.e2e.hosts import sh

__all__ = ["WireCable"]

# linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_IFF_TAP_NO_PI: Final = 0x0002 | 0x1000
_FRAME_MAX: Final = 65536
_LAST_S: Final = 10


class WireCable:
    """The cable, from where hosts are made. A `Cable` of tests.e2e.hosts."""

    def __init__(self, name: str, namespace: str, bridge: str, *, seed: int = 0) -> None:
        self._name = name
        inner = f"{name}i"
        command = [sys.executable, "-m", "tests.chaos.wire", name, inner, str(seed)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "laid\n"
        sh("ip", "link", "set", inner, "netns", namespace, "name", "eth0")
        sh("ip", "link", "set", name, "master", bridge, "up")

    def impair(self, *, inward: Impairment = CLEAN, outward: Impairment = CLEAN) -> None:
        """From now on treat frames to the host, and frames from it, like this."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"inward": asdict(inward), "outward": asdict(outward)}) + "\n")
        self._process.stdin.flush()

    def cut(self) -> None:
        sh("ip", "link", "set", self._name, "down")

    def mend(self) -> None:
        sh("ip", "link", "set", self._name, "up")

    def close(self) -> None:
        assert self._process.stdin is not None
        with self._process:  # which closes its ends of the pipes
            self._process.stdin.close()
            self._process.wait(_LAST_S)


def _tap(name: str) -> int:
    """Make a TAP device, which is there as long as what is returned is open."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP_NO_PI))
    return device


class _Wire:
    def __init__(self, outer: int, inner: int, random: Random) -> None:
        self._random = random
        self._other = {outer: inner, inner: outer}
        self._ends = {"inward": outer, "outward": inner}
        self._impaired = {outer: CLEAN, inner: CLEAN}
        #: (when it is due, a number that keeps the order, where to, the frame)
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._numbers = count()

    def order(self, lines: bytes) -> None:
        """Obey the last of these lines, which are whole: a pipe takes short ones in one piece."""
        for direction, members in json.loads(lines.splitlines()[-1]).items():
            self._impaired[self._ends[direction]] = Impairment(**members)

    def take(self, end: int) -> None:
        try:
            frame = os.read(end, _FRAME_MAX)
        except OSError:  # the device is down
            return
        now = time.monotonic()
        for after_s in arrivals(self._impaired[end], self._random):
            heapq.heappush(self._under_way, (now + after_s, next(self._numbers), self._other[end], frame))

    def deliver(self) -> float | None:
        """Hand over what is due; return the seconds until the next frame is."""
        while self._under_way:
            wait_s = self._under_way[0][0] - time.monotonic()
            if wait_s > 0:
                return wait_s
            _, _, end, frame = heapq.heappop(self._under_way)
            try:
                os.write(end, frame)
            except OSError:  # down, or its queue is full: a cable loses what nobody takes
                continue
        return None


def _run(outer: str, inner: str, seed: str) -> None:
    ends = (_tap(outer), _tap(inner))
    wire = _Wire(*ends, Random(seed))
    sys.stdout.write("laid\n")
    sys.stdout.flush()
    with selectors.DefaultSelector() as selector:
        for readable in (0, *ends):
            selector.register(readable, selectors.EVENT_READ)
        wait_s: float | None = None
        while True:
            for key, _ in selector.select(wait_s):
                if key.fd != 0:
                    wire.take(key.fd)
                elif orders := os.read(0, _FRAME_MAX):
                    wire.order(orders)
                else:
                    return
            wait_s = wire.deliver()


if __name__ == "__main__":
    _run(*sys.argv[1:4])
