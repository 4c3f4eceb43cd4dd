"""A host is never over-committed: claims are all or nothing, per task, and say what is missing."""

import pytest

from agent.claims import Claims
from homeport.ids import TaskId
from homeport.spec import Resources

CAPACITY = Resources(cpu_units=1024, memory_mib=1000, ports=frozenset({("tcp", 22)}))


def held(**asked: int) -> Claims:
    claims = Claims()
    assert claims.claim(TaskId("first"), Resources(**asked), CAPACITY) is None  # type: ignore[arg-type]
    return claims


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        (Resources(cpu_units=512, memory_mib=400), None),
        (Resources(cpu_units=513), "cpu: 513 units asked, 512 of 1024 free"),
        (Resources(memory_mib=401), "memory: 401 MiB asked, 400 of 1000 free"),
        (Resources(ports=frozenset({("tcp", 22), ("tcp", 80)})), "host ports taken: 22/tcp"),
        (Resources(ports=frozenset({("udp", 22)})), None),
        (Resources(gpus=1), "gpu: 1 GPUs asked, 0 of 0 free"),
        (Resources(), None),
    ],
)
def test_what_does_not_fit_is_named(asked: Resources, refusal: str | None) -> None:
    claims = held(cpu_units=512, memory_mib=600)
    assert claims.claim(TaskId("second"), asked, CAPACITY) == refusal


def test_a_refused_task_holds_nothing() -> None:
    claims = held(cpu_units=512)
    assert claims.claim(TaskId("big"), Resources(cpu_units=513, memory_mib=1000), CAPACITY) is not None
    assert claims.claim(TaskId("other"), Resources(memory_mib=1000), CAPACITY) is None


def test_claiming_twice_counts_once_and_release_gives_it_back() -> None:
    claims = held(cpu_units=1024)
    assert claims.claim(TaskId("first"), Resources(cpu_units=1024), CAPACITY) is None
    claims.release(TaskId("first"))
    claims.release(TaskId("first"))
    assert claims.claim(TaskId("second"), Resources(cpu_units=1024), CAPACITY) is None


def test_two_tasks_cannot_have_one_port() -> None:
    claims = Claims()
    web = Resources(ports=frozenset({("tcp", 80)}))
    assert claims.claim(TaskId("a"), web, CAPACITY) is None
    assert claims.claim(TaskId("b"), web, CAPACITY) == "host ports taken: 80/tcp"


def test_what_is_there_already_is_held_even_beyond_capacity() -> None:
    claims = Claims()
    claims.hold(TaskId("adopted"), Resources(memory_mib=5000))
    assert claims.claim(TaskId("new"), Resources(memory_mib=1), CAPACITY) == "memory: 1 MiB asked, 0 of 1000 free"
