import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homeport.cli.supervisor import Child, ChildFailed, backoff_s, describe_exit
from homeport.clock import SystemClock

#: Says what it is, then waits for its end.
SERVE = "import signal, sys; print(sys.argv[1], file=sys.stderr, flush=True); signal.pause()"


def child(script: str, tmp_path: Path, said: list[str], *arguments: str) -> Child:
    return Child(
        "the child",
        lambda: [sys.executable, "-c", script, *arguments],
        environment={},
        log=tmp_path / "child.log",
        say=said.append,
        clock=SystemClock(),
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - there is no event of ours to wait for
            await asyncio.sleep(0.01)


async def pid_other_than(supervised: Child, old: int | None) -> int:
    await until(lambda: supervised.pid not in (None, old))
    assert supervised.pid is not None
    return supervised.pid


def test_backoff_doubles_up_to_half_a_minute() -> None:
    assert [backoff_s(deaths) for deaths in (1, 2, 3, 4)] == [0.2, 0.4, 0.8, 1.6]
    assert backoff_s(50) == 30.0


@pytest.mark.parametrize(
    ("code", "text"), [(0, "exited with status 0"), (-9, "was killed by SIGKILL"), (-200, "was killed by signal 200")]
)
def test_an_end_is_described_in_words(code: int, text: str) -> None:
    assert describe_exit(code) == text


async def test_a_child_killed_is_started_again_and_it_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    supervised = child(SERVE, tmp_path, said, "hello")
    supervised.established = True
    async with asyncio.TaskGroup() as group:
        running = group.create_task(supervised.run())
        first = await pid_other_than(supervised, None)
        os.kill(first, signal.SIGKILL)
        second = await pid_other_than(supervised, first)
        running.cancel()
    assert said == ["the child was killed by SIGKILL; starting it again in 0.2 s"]
    assert not Path(f"/proc/{second}").exists()
    assert supervised.pid is None


async def test_a_child_that_cannot_start_is_not_tried_again_and_its_last_words_are_kept(tmp_path: Path) -> None:
    script = "import sys; print('noise'); sys.exit('the port is taken')"
    with pytest.raises(ChildFailed) as caught:
        await child(script, tmp_path, []).run()
    assert (caught.value.exit_code, caught.value.last_words) == (1, "the port is taken")


async def test_last_words_are_those_of_this_start(tmp_path: Path) -> None:
    (tmp_path / "child.log").write_text("what an earlier one said\n")
    with pytest.raises(ChildFailed) as caught:
        await child("import sys; sys.exit(3)", tmp_path, []).run()
    assert (caught.value.exit_code, caught.value.last_words) == (3, "")


async def test_a_configuration_that_cannot_be_used_ends_even_an_established_child(tmp_path: Path) -> None:
    supervised = child("import sys; sys.exit(78)", tmp_path, [])
    supervised.established = True
    with pytest.raises(ChildFailed):
        await supervised.run()


async def test_a_child_that_is_over_is_not_started_again(tmp_path: Path) -> None:
    starts: list[str] = []
    answers = [False, True]

    async def is_over() -> bool:
        return answers.pop(0)

    def command() -> list[str]:
        starts.append("start")
        return [sys.executable, "-c", ""]

    said: list[str] = []
    supervised = Child(
        "it", command, environment={}, log=tmp_path / "log", say=said.append, clock=SystemClock(), is_over=is_over
    )
    supervised.established = True
    async with asyncio.timeout(20):
        await supervised.run()
    assert starts == ["start", "start"]
    assert said == ["it exited with status 0; starting it again in 0.2 s"]


async def test_a_large_log_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "child.log").write_bytes(b"x" * (10 * 1024 * 1024 + 1))
    with pytest.raises(ChildFailed):
        await child("import sys; sys.exit('new')", tmp_path, []).run()
    assert (tmp_path / "child.log").read_text() == "new\n"
    assert (tmp_path / "child.log.1").stat().st_size > 10 * 1024 * 1024


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[Path]:
    """A file for the pid of a process that must not stay behind."""
    file = tmp_path / "pid"
    yield file
    if file.exists():
        try:
            os.kill(int(file.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            return


async def test_a_child_ends_with_a_supervisor_that_was_killed(orphan: Path, tmp_path: Path) -> None:
    supervisor = f"""
import asyncio, sys
from pathlib import Path
from homeport.cli.supervisor import Child
from homeport.clock import SystemClock
script = "import os, sys, signal, pathlib; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); signal.pause()"
child = Child("c", lambda: [sys.executable, "-c", script, {str(orphan)!r}], environment={{}},
              log=Path({str(tmp_path / "log")!r}), say=print, clock=SystemClock())
asyncio.run(child.run())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", supervisor)
    try:
        await until(lambda: orphan.exists() and bool(orphan.read_text()))
        pid = int(orphan.read_text())
        process.kill()
        await process.wait()
        await until(lambda: not Path(f"/proc/{pid}").exists())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
