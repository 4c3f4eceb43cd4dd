"""Every record of every kind is stored and read back as it was, by this version and beside other versions."""

import types
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from msgspec import inspect

from controlplane.state.kinds import RECORD_KINDS
from controlplane.state.records import InstanceRecord, Record
from controlplane.store.documents import decode_record, decode_story, encode
from homeport.errors import JournalError
from homeport.story import StoryLine

NUMBERS = st.integers(-(2**63), 2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
#: What JSON can carry: the ECS documents that are kept as given.
ANY = st.recursive(
    st.none() | st.booleans() | NUMBERS | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Return a strategy for every value that a field of this type can have."""
    match kind:
        case inspect.AnyType():
            return ANY
        case inspect.NoneType():
            return st.none()
        case inspect.StrType():
            return TEXT
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=None, le=None):
            return NUMBERS
        case inspect.IntType(ge=least, le=most):
            return st.integers(least, most)
        case inspect.FloatType(ge=least, le=most):
            return st.floats(least, most, allow_nan=False, allow_infinity=False)
        case inspect.LiteralType(values=literals):
            return st.sampled_from(literals)
        case inspect.EnumType(cls=enum):
            return st.sampled_from(list(enum))
        case inspect.UnionType(types=options):
            return st.one_of(*map(values, options))
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key), values(value), max_size=2)
        case inspect.FrozenSetType(item_type=item):
            return st.frozensets(values(item), max_size=2)
        case inspect.VarTupleType(item_type=item):
            return st.lists(values(item), max_size=2).map(tuple)
        case inspect.TupleType(item_types=items):
            return st.tuples(*map(values, items))
        case inspect.StructType(cls=struct, fields=fields):
            members = {
                field.name: values(field.type) if field.required else st.just(msgspec.UNSET) | values(field.type)
                for field in fields
            }
            return st.fixed_dictionaries(members).map(
                lambda given: struct(**{name: value for name, value in given.items() if value is not msgspec.UNSET})
            )
        case _:
            raise NotImplementedError(f"records have a field of type {kind}")


def of(struct: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    return values(inspect.type_info(struct))


FEW = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@pytest.mark.parametrize("kind", RECORD_KINDS)
@FEW
@given(data=st.data())
def test_a_record_is_read_back_as_it_was(kind: str, data: st.DataObject) -> None:
    record: Record = data.draw(of(RECORD_KINDS[kind]))
    found = decode_record(kind, record.key, encode(record))
    assert found == record
    assert found.key == record.key
    assert encode(found) == encode(record) or has_a_set(record)


def has_a_set(record: Record) -> bool:
    """Tell whether the order of a set may make two documents of equal records differ."""
    of_host = (record.facts.resources, record.told.remaining) if isinstance(record, InstanceRecord) else ()
    found = (getattr(record, "resources", None), *of_host)
    return any(resources is not None and len(resources.ports) > 1 for resources in found)


@FEW
@given(line=of(StoryLine))
def test_a_story_line_is_read_back_as_it_was(line: StoryLine) -> None:
    assert decode_story(encode(line)) == decode_story(b"[" + encode(line) + b"]") == (line,)


@pytest.mark.parametrize("kind", RECORD_KINDS)
@FEW
@given(data=st.data())
def test_members_that_a_newer_version_added_are_ignored_at_every_depth(kind: str, data: st.DataObject) -> None:
    record: Record = data.draw(of(RECORD_KINDS[kind]))
    document = with_news(msgspec.to_builtins(record), inspect.type_info(RECORD_KINDS[kind]))
    assert decode_record(kind, record.key, msgspec.json.encode(document)) == record


def with_news(document: Any, kind: inspect.Type) -> Any:
    """Return the document with an unknown member in every struct of it."""
    match kind:
        case inspect.StructType(fields=fields):
            types_of = {field.encode_name: field.type for field in fields}
            news = {"added_by_a_newer_version": [{"a": 1}]}
            return {name: with_news(value, types_of[name]) for name, value in document.items()} | news
        case inspect.VarTupleType(item_type=item):
            return [with_news(value, item) for value in document]
        case inspect.UnionType(types=options) if document is not None:
            return with_news(document, next(option for option in options if not isinstance(option, inspect.NoneType)))
        case _:
            return document


@pytest.mark.parametrize("kind", RECORD_KINDS)
def test_every_member_but_the_first_versions_has_a_default_or_is_listed(kind: str) -> None:
    """A member without a default can't be read from a document that was written before it existed."""
    required = {field.name for field in msgspec.structs.fields(RECORD_KINDS[kind]) if field.required}
    assert required == REQUIRED[kind]


#: Of schema 1, or of the version that brought the kind. A change here needs a migration.
REQUIRED = types.MappingProxyType(
    {
        "service": {"id", "cluster", "name", "created_at"},
        "service-revision": {"id", "service_id", "service", "created_at", "task_definition"},
        "deployment": {"id", "arn_id", "service_id", "service", "revision", "created_at", "updated_at"},
        "service-event": {"id", "service_id", "number", "at", "message"},
        "task-set": {"id", "service_id", "service", "created_at", "updated_at", "task_definition"},
        "capacity-provider": {"name", "created_at"},
        "schedule": {"name", "created_at", "timetable"},
        "schedule-group": {"name", "created_at"},
        "rule": {"name", "created_at", "timetable"},
        "schedule-run": {"trigger", "number", "due_at", "outcome"},
        "connection": {
            *("name", "id", "created_at", "modified_at", "authorized_at", "authorization", "user", "secret"),
        },
        "api-destination": {
            *("name", "id", "created_at", "modified_at", "connection", "connection_id", "endpoint", "method"),
        },
        "event-delivery": {"rule", "target_id", "cursor"},
        "cluster": {"name", "created_at"},
        "family": {"name", "last_revision"},
        "task-definition": {"family", "revision", "document", "registered_at", "registered_by"},
        "container-instance": {"id", "cluster", "public_key", "registered_at", "facts"},
        "task": {"id", "cluster", "spec", "created_at", "launch_type"},
        "activation": {"id", "code_hash", "created_at", "expires_at"},
        "idempotency": {"operation", "scope", "token", "fingerprint", "at"},
        "setting": {"name", "value"},
    }
)


def test_what_cannot_be_read_is_named() -> None:
    with pytest.raises(JournalError, match="unknown kind 'spaceship'"):
        decode_record("spaceship", "a", b"{}")
    with pytest.raises(JournalError, match="stored cluster 'a' can't be read"):
        decode_record("cluster", "a", b'{"name": 1}')
