"""What the state costs in memory: the budget is 400 MB for 50,000 tasks on 5,000 hosts, sessions and all."""

import random
import tracemalloc
from pathlib import Path

from bench.journal import example_instance, example_task
from controlplane.state.state import State, load_state
from controlplane.store.sqlite import SqliteJournal
from tests.fakes.journal import MemoryJournal

HOSTS = 200
TASKS = 2000
#: 50,000 times this and 5,000 hosts' share is about 125 MB; an idle process has 60 MB and the sessions take 114 MB.
BYTES_PER_TASK = 2100
BYTES_PER_HOST = 4000


async def test_tasks_and_hosts_fit_the_budget(tmp_path: Path) -> None:
    source = random.Random(1)
    instances = [example_instance(source, number) for number in range(HOSTS)]
    tasks = [example_task(source, number, instances[number % HOSTS].id) for number in range(TASKS)]
    async with SqliteJournal.open(tmp_path / "state.db") as journal:
        filled = State(journal)
        with filled.transaction() as transaction:
            for record in (*instances, *tasks):
                transaction.put(record)
    del filled, tasks, instances, record, transaction
    async with SqliteJournal.open(tmp_path / "state.db") as journal:
        await load_state(MemoryJournal())  # whatever is made once, is made
        tracemalloc.start()
        state = await load_state(journal)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (len(state.tasks), len(state.instances)) == (TASKS, HOSTS)
    assert held <= TASKS * BYTES_PER_TASK + HOSTS * BYTES_PER_HOST, f"{held / TASKS:.0f} bytes for each task"
