"""The shell both daemons wear: configuration file, logging, signals, systemd, private files. It does I/O."""

import asyncio
import logging
import os
import signal
import sys
import tempfile
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import click
import sdnotify
import structlog

from homeport.errors import ConfigurationError, JournalError, leaves

__all__ = [
    "EXIT_CONFIG",
    "config_option",
    "configure_logging",
    "notify",
    "run_daemon",
    "run_until_signalled",
    "watchdog",
    "write_private",
]

#: Exit status of a daemon whose configuration can't be used (sysexits' EX_CONFIG): systemd must not restart it.
EXIT_CONFIG: Final = 78


def configure_logging(level: str = "info") -> None:
    """Log one event per line on stderr: coloured text on a terminal, else JSON."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def _read_config(context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Use a TOML file's values as defaults of the command's flags; flags and environment win."""
    if path is not None:
        try:
            values = {key.replace("-", "_"): value for key, value in tomllib.loads(path.read_text()).items()}
        except (OSError, ValueError) as error:
            raise click.BadParameter(f"can't read {path}: {error}") from error
        unknown = values.keys() - {parameter.name for parameter in context.command.params}
        if unknown:
            raise click.BadParameter(f"{path}: unknown setting {', '.join(sorted(unknown))}")
        context.default_map = values
    return path


#: `--config FILE`: a TOML file with the command's own flags as settings.
config_option: Final = click.option(
    "--config",
    type=click.Path(path_type=Path),
    callback=_read_config,
    is_eager=True,
    help="TOML file of these settings.",
)


def run_daemon(
    name: str,
    main: Callable[[], Awaitable[None]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run a daemon's coroutine in an event loop of its own until it ends or a signal ends it.

    Leaves the process with EXIT_CONFIG after a ConfigurationError and 1 after a JournalError, each told in a line.
    `loop_factory`: None for asyncio's own loop.
    """
    status = 0
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(run_until_signalled(main))
    except* ConfigurationError as errors:
        for problem in dict.fromkeys(map(str, leaves(errors))):
            click.echo(f"{name}: {problem}", err=True)
        status = EXIT_CONFIG
    except* JournalError as errors:
        for problem in dict.fromkeys(map(str, leaves(errors))):
            click.echo(f"{name}: {problem}; stopping, so that nothing is said or done that isn't kept", err=True)
        status = 1
    # Not in the blocks above: Python before 3.11.4 wraps whatever leaves an `except*`, so that any status becomes 1.
    if status:
        sys.exit(status)


def notify(state: str) -> None:
    """Tell systemd, e.g. "READY=1"; quietly nothing where there is none."""
    sdnotify.SystemdNotifier().notify(state)


async def watchdog(alive: Callable[[], Awaitable[None]] | None = None) -> None:
    """Pet systemd's watchdog at half its period for as long as the event loop turns (and `alive` returns)."""
    period_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 / 2
    if not period_s:
        return
    while True:
        if alive is not None:
            await alive()
        notify("WATCHDOG=1")
        await asyncio.sleep(period_s)


async def run_until_signalled(main: Callable[[], Awaitable[None]]) -> None:
    """Run `main` until it returns, raises, or SIGTERM or SIGINT cancels it. Only the outermost `main` calls this."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    async def wait_for_signal(work: "asyncio.Task[None]") -> None:
        await stopping.wait()
        notify("STOPPING=1")
        work.cancel()

    async def body() -> None:
        await main()

    async with asyncio.TaskGroup() as group:
        work = group.create_task(body())
        waiter = group.create_task(wait_for_signal(work))
        work.add_done_callback(lambda _: waiter.cancel())


def write_private(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file so that it is either wholly there, durable and with `mode`, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
