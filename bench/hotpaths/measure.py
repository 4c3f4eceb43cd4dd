"""Measuring: a process of its own under callgrind runs the paths, one round of each counted.

    counts = measure(PATHS)        # name -> instructions for each operation

In that process nothing depends on chance: hashes, seeds and the environment are fixed, the garbage collector waits
(when it comes depends on all that was before), and two rounds go before the one that counts, so that caches are filled
and Python has specialised its code.
"""

import asyncio
import gc
import importlib
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path as FilePath

import structlog

from bench.hotpaths.counter import Counter
from bench.hotpaths.model import Path

__all__ = ["MeasuringFailed", "measure"]

_ROOT = FilePath(__file__).parents[2]
_ROUNDS_BEFORE = 2
#: Far more than all paths take on a busy machine.
_TIMEOUT_S = 900

_NAME = re.compile(r"^desc: Trigger: Client Request: (.+)$", re.MULTILINE)
_TOTAL = re.compile(r"^totals: (\d+)", re.MULTILINE)


class MeasuringFailed(Exception):
    """The paths didn't run to their end under callgrind; the message has what the process said."""


def measure(paths: Sequence[Path], module: str = "bench.hotpaths.paths") -> dict[str, int]:
    """Return the instructions that each path takes for one operation. Takes about a minute.

    `module`: where a process of its own finds the same paths, as PATHS. Raises MeasuringFailed; FileNotFoundError if
    Valgrind isn't installed.
    """
    with tempfile.TemporaryDirectory(prefix="homeport-hotpaths-") as directory:
        out = FilePath(directory) / "out"
        command = ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        done = subprocess.run(
            [*command, sys.executable, "-m", "bench.hotpaths.measure", module],
            cwd=_ROOT, env=_environment(directory), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise MeasuringFailed(f"status {done.returncode}\n{done.stdout}{done.stderr}")
        totals = parse(dump.read_text() for dump in FilePath(directory).glob("out.*"))
    return {path.name: round(totals[path.name] / path.operations) for path in paths}


def _environment(directory: str) -> Mapping[str, str]:
    """The same everywhere: even the length of the environment moves what lies behind it in memory."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "TMPDIR": directory}


def parse(dumps: Iterable[str]) -> dict[str, int]:
    """Return the total of each dump of callgrind's by the name it was asked for under; others are passed over."""
    found = ((_NAME.search(dump), _TOTAL.search(dump)) for dump in dumps)
    return {name[1]: int(total[1]) for name, total in found if name is not None and total is not None}


async def _run(paths: Iterable[Path]) -> None:
    counter = Counter()
    for path in paths:
        async with path.prepare() as once:
            for _ in range(_ROUNDS_BEFORE):
                await once()
            gc.collect()
            gc.disable()
            with counter.counting(path.name):
                await once()
            gc.enable()


def main() -> None:
    """Run the paths of a module, to be counted."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    asyncio.run(_run(importlib.import_module(sys.argv[1]).PATHS))


if __name__ == "__main__":
    main()
