"""What hosts hold: kept current with each change, equal at all times to a recount."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.context import Context
from controlplane.state.load import HostLoad
from homeport.ids import InstanceId
from homeport.spec import Resources
from homeport.status import DesiredStatus, TaskStatus
from tests.fakes.records import a_context, a_task, put

HOSTS = [InstanceId("a"), InstanceId("b")]


def recount(context: Context, host: InstanceId) -> HostLoad:
    load = HostLoad()
    for task in context.state.tasks:
        if task.instance_id == host and task.status is not TaskStatus.STOPPED:
            load.add(task.resources, 1)
            if task.desired is not DesiredStatus.STOPPED:
                load.groups[task.group] += 1
    return load


changes = st.lists(
    st.tuples(
        st.sampled_from(["t1", "t2", "t3"]),
        st.sampled_from([None, *HOSTS]),
        st.sampled_from([TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.STOPPED]),
        st.sampled_from([DesiredStatus.RUNNING, DesiredStatus.STOPPED]),
        st.sampled_from(["g", "h"]),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=20,
)


@settings(max_examples=150, deadline=None)
@given(changes)
def test_the_books_equal_a_recount_after_each_change(
    found: list[tuple[str, InstanceId | None, TaskStatus, DesiredStatus, str, int, bool]],
) -> None:
    context = a_context()
    for name, host, status, desired, group, amount, delete in found:
        resources = Resources(cpu_units=amount, memory_mib=amount * 2, ports=frozenset({("tcp", amount)}))
        task = a_task(name, instance_id=host, status=status, desired=desired, group=group, resources=resources)
        if delete:
            with context.state.transaction() as transaction:
                transaction.delete(task)
        else:
            put(context, task)
        for each in HOSTS:
            assert context.state.load.of(each) == recount(context, each)


def test_a_task_that_is_to_stop_holds_its_resources_but_is_not_of_its_group_any_more() -> None:
    context = a_context()
    task = a_task("t", instance_id=HOSTS[0], group="g", resources=Resources(memory_mib=5))
    put(context, task)
    assert context.state.load.of(HOSTS[0]).groups == Counter({"g": 1})
    put(
        context,
        a_task("t", instance_id=HOSTS[0], group="g", resources=Resources(memory_mib=5), desired=DesiredStatus.STOPPED),
    )
    load = context.state.load.of(HOSTS[0])
    assert (load.memory_mib, load.tasks) == (5, 1)
    assert not load.groups
