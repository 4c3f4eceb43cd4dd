"""Equal parts of tasks are kept once; nothing but their identity changes."""

import hypothesis.strategies as st
import msgspec
import msgspec.inspect
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from controlplane.state.records import TaskRecord
from controlplane.state.sharing import Sharing
from controlplane.state.state import State, load_state
from controlplane.store.documents import decode_record, encode
from homeport.ids import TaskId
from homeport.protocol import ContainerReport
from homeport.spec import ContainerSpec, TaskSpec
from homeport.status import ContainerStatus
from tests.fakes.journal import MemoryJournal
from tests.unit.test_records import of, values


def task(number: int, **environment: str) -> TaskRecord:
    """Return a task as it comes from the journal: every object its own."""
    container = ContainerSpec(
        name="web", image="busybox", container_arn=f"c{number}", environment=environment, command=("httpd", "-f")
    )
    spec = TaskSpec(task_arn=f"t{number}", cluster="default", family="web", revision=1, containers=(container,))
    report = ContainerReport(
        name="web", status=ContainerStatus.RUNNING, runtime_id=f"r{number}", image_digest="sha256:1"
    )
    record = TaskRecord(
        id=TaskId(f"{number:032x}"),
        cluster="default",
        spec=spec,
        created_at=1.0,
        launch_type="EC2",
        tags={"team": "a"},
        containers=(report,),
    )
    decoded = decode_record("task", record.id, encode(record))
    assert isinstance(decoded, TaskRecord)
    return decoded


def assert_shared(first: TaskRecord, second: TaskRecord) -> None:
    assert second.spec.containers[0].environment is first.spec.containers[0].environment
    assert second.spec.containers[0].command is first.spec.containers[0].command
    assert second.spec.family is first.spec.family
    assert second.tags is first.tags
    assert second.containers[0].image_digest is first.containers[0].image_digest


def test_tasks_of_a_definition_share_what_is_equal() -> None:
    state = State(MemoryJournal())
    with state.transaction() as transaction:
        transaction.put(task(1, a="1"))
        transaction.put(task(2, a="1"))
        transaction.put(task(3, a="another"))
    first, second, third = state.tasks
    assert [first, second, third] == [task(1, a="1"), task(2, a="1"), task(3, a="another")]
    assert_shared(first, second)
    assert third.spec.containers[0].environment == {"a": "another"}


def test_a_task_launched_from_the_template_of_another_is_kept_as_it_is() -> None:
    state = State(MemoryJournal())
    with state.transaction() as transaction:
        transaction.put(task(1, a="1"))
    (first,) = state.tasks
    (container,) = first.spec.containers
    spec = replace(first.spec, task_arn="t2", containers=(replace(container, container_arn="c2"),))
    with state.transaction() as transaction:
        transaction.put(replace(task(2), spec=spec))
    (_, second) = state.tasks
    assert second.spec is spec
    assert_shared(first, second)


async def test_tasks_that_are_loaded_share_too() -> None:
    state = await load_state(MemoryJournal([task(1, a="1"), task(2, a="1")]))
    assert list(state.tasks) == [task(1, a="1"), task(2, a="1")]
    assert_shared(*state.tasks)


def test_a_report_keeps_the_spec_and_shares_its_digest() -> None:
    state = State(MemoryJournal())
    with state.transaction() as transaction:
        transaction.put(task(1))
        transaction.put(task(2))
    (first, before) = state.tasks
    reported = replace(before, containers=task(2).containers, reported_seq=1)
    with state.transaction() as transaction:
        transaction.put(reported)
    (_, after) = state.tasks
    assert after == reported
    assert after.spec is before.spec
    assert after.containers[0].image_digest is first.containers[0].image_digest


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(data=st.data())
def test_what_is_shared_is_equal_to_what_came(data: st.DataObject) -> None:
    sharing = Sharing()
    first = data.draw(of(TaskRecord))
    fields = {field.name: field.type for field in type_info_of(TaskRecord)}
    name = data.draw(st.sampled_from(sorted(fields)))
    second = replace(first, **{name: data.draw(values(fields[name]))})
    for record in (first, second):
        for found in (sharing.task(record, None), sharing.task(record, first)):
            assert found == record
            assert msgspec.json.encode(found.overrides) == msgspec.json.encode(record.overrides)


def type_info_of(struct: type[msgspec.Struct]) -> tuple[msgspec.inspect.Field, ...]:
    kind = msgspec.inspect.type_info(struct)
    assert isinstance(kind, msgspec.inspect.StructType)
    return kind.fields
