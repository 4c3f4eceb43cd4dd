"""What bench/peers takes its times from: a real Engine's events."""

import asyncio
import os
import signal

import pytest

from agent.engine.transport import docker_host_of
from bench.peers.watch import Running
from tests.engine.conftest import Lab

pytestmark = pytest.mark.engine


async def test_a_container_runs_from_its_start_to_its_death(lab: Lab) -> None:
    running = Running(docker_host_of(None))
    try:
        container = await lab.start()
        # In a thread: it blocks until the Engine says so.
        started = await asyncio.to_thread(running.until, lambda ids: container in ids, within_s=30)
        os.kill((await lab.inspect(container)).pid, signal.SIGKILL)
        died = await asyncio.to_thread(running.until, lambda ids: container not in ids, within_s=30)
        facts = await lab.inspect(container)
    finally:
        await asyncio.to_thread(running.close)
    assert facts.started_at is not None
    assert facts.finished_at is not None
    assert facts.started_at <= started <= facts.finished_at <= died
