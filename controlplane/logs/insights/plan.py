"""From a query's tree to a plan: row-wise steps, and between them what must see all rows before it gives one. Pure.

Rows without an order of their own come newest first. A `sort` gives each row its key where it stands; rows are put in
order where that is first needed (limit, dedup, the end), so that a sorted query holds no more rows than it shows. What
is alike stays in the order of the events, or, behind the last key's `desc`, in its reverse.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.logs.insights.aggregates import AGGREGATES, Gather
from controlplane.logs.insights.expressions import SYSTEM_FIELDS, Evaluate, Scope, compile_expression, compile_regex
from controlplane.logs.insights.rows import Row
from controlplane.logs.insights.syntax import (
    Call,
    Command,
    Dedup,
    Display,
    Expression,
    Field,
    Fields,
    Filter,
    Limit,
    Literal,
    MalformedQuery,
    Output,
    Parse,
    Sort,
    Span,
    Stats,
)
from controlplane.logs.insights.values import NUMBER_RANK, number_of, shown, sort_key, truth

__all__ = ["Column", "First", "Group", "Plan", "Segment", "Step", "Unique", "make_plan"]

#: Changes a row; tells whether it goes on.
Step = Callable[[Row], bool]


@dataclass(frozen=True, slots=True)
class First:
    """The first `count` rows: in the order of their keys if they are `keyed`, else as they come."""

    count: int
    keyed: bool


@dataclass(frozen=True, slots=True)
class Unique:
    """The first row of each combination of values, in an order as above; rows that lack a value are all kept."""

    values: tuple[Evaluate, ...]
    keyed: bool


@dataclass(frozen=True, slots=True)
class Group:
    """One row for each group. `gathers`: what is gathered of which value; `outputs` see the results in the row's
    `values`, under numbers."""

    by: tuple[tuple[str, Evaluate], ...]
    gathers: tuple[tuple[Callable[[], Gather], Evaluate], ...]
    outputs: tuple[tuple[str, Evaluate], ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """Steps, and what gathers the rows that come through."""

    steps: tuple[Step, ...]
    barrier: First | Unique | Group


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the result."""

    name: str
    value: Evaluate


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with events, and what to show. Rows of events have a pointer in the end."""

    segments: tuple[Segment, ...]
    columns: tuple[Column, ...]
    pointers: bool


def make_plan(commands: Sequence[Command], *, limit: int, now: float) -> Plan:
    """Make the plan. `limit`: the most rows; `now`: epoch seconds, for now(). Raises MalformedQuery."""
    planner = _Planner(Scope(now=now))
    for command in commands:
        planner.take(command)
    return planner.finish(limit)


@dataclass(slots=True)
class _Planner:
    scope: Scope
    segments: list[Segment] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    #: Events come newest first until a sort says otherwise; behind a sort rows are `keyed`.
    newest_first: bool = True
    keyed: bool = False
    #: By name, in the order they were asked for; `chosen`: by a display.
    columns: dict[str, Evaluate] = field(default_factory=dict)
    parsed: list[str] = field(default_factory=list)
    chosen: dict[str, Evaluate] | None = None
    has_fields: bool = False

    def take(self, command: Command) -> None:
        match command:
            case Fields(outputs=outputs):
                self.columns.update((output.name, self._output(output)) for output in outputs)
                self.has_fields = True
            case Display(outputs=outputs):
                self.chosen = {output.name: self._output(output) for output in outputs}
            case Filter(condition=condition):
                holds = self._compile(condition)
                self.steps.append(lambda row: truth(holds(row)))
            case Parse():
                self._parse(command)
            case Sort():
                self._sort(command)
            case Limit(count=count):
                self._close(First(count, self._keyed()))
            case Dedup(fields=fields):
                self._close(Unique(tuple(map(self._compile, fields)), self._keyed()))
            case Stats():
                self._stats(command)

    def finish(self, limit: int) -> Plan:
        self._close(First(limit, self._keyed()))
        columns = self.chosen if self.chosen is not None else self._columns()
        made, events = self.scope.made, self.scope.events
        shown = tuple(
            # What was made later under a column's name is what it shows.
            Column(name, _made(name) if name in made else value)
            for name, value in columns.items()
            if name != "@ptr" or not events
        )
        return Plan(tuple(self.segments), shown, pointers=events)

    def _columns(self) -> dict[str, Evaluate]:
        columns = dict(self.columns)
        if not self.has_fields and self.scope.events:
            columns = {name: self._compile(Field(Span(0, 0), name, (name,))) for name in ("@timestamp", "@message")}
        for name in self.parsed:
            columns.setdefault(name, _made(name))
        return columns

    def _close(self, barrier: First | Unique | Group) -> None:
        self.segments.append(Segment(tuple(self.steps), barrier))
        self.steps = []
        self.newest_first = self.keyed = False

    def _keyed(self) -> bool:
        """Tell whether rows have a key to be put in order by; events without a sort are given one here."""
        if self.newest_first:
            self.steps.append(_note_newest_first)
        return self.newest_first or self.keyed

    def _compile(self, expression: Expression) -> Evaluate:
        return compile_expression(expression, self.scope)

    def _output(self, output: Output) -> Evaluate:
        """Have an output computed where it stands; return what gives it from a row."""
        value = self._compile(output.expression)
        if isinstance(output.expression, Field) and output.name == output.expression.name:
            return value
        self._make(output.name, value)
        return _made(output.name)

    def _make(self, name: str, value: Evaluate) -> None:
        def compute(row: Row) -> bool:
            row.values[name] = value(row)
            return True

        self.steps.append(compute)
        self.scope.made.add(name)

    def _parse(self, command: Parse) -> None:
        subject = self._compile(command.subject)
        pattern = command.pattern
        if pattern.regex:
            regex = compile_regex(pattern)
            names = tuple(sorted(regex.groupindex, key=regex.groupindex.__getitem__))
            if not names:
                raise MalformedQuery(
                    "parse: the regular expression names no group, as in (?<user>\\w+)",
                    pattern.span.start,
                    pattern.span.end,
                )
            take = _take_groups(subject, regex, names)
        else:
            names = command.names
            take = _take_parts(subject, pattern.text.split("*"), names)
        self.steps.append(take)
        self.scope.made.update(names)
        self.parsed += names

    def _sort(self, command: Sort) -> None:
        keys = [(self._compile(key.expression), key.descending) for key in command.keys]
        backwards = keys[-1][1]
        self.newest_first, self.keyed = False, True
        if self.scope.events and len(keys) == 1 and keys[0][0] is SYSTEM_FIELDS["@timestamp"]:
            # What most queries ask for is cheap: the place of an event begins with its time.
            self.steps.append(_note_newest_first if backwards else _note_oldest_first)
            return

        def note(row: Row) -> bool:
            found = [sort_key(value(row)) for value, _ in keys]
            row.key_parts = sum(map(len, found))
            parts = (_downwards(key) if down else key for key, (_, down) in zip(found, keys, strict=True))
            row.key = (*parts, tuple(-number for number in row.place) if backwards else row.place)
            return True

        self.steps.append(note)

    def _stats(self, command: Stats) -> None:
        by = tuple((output.name, self._compile(output.expression)) for output in command.by)
        gathers: list[tuple[Callable[[], Gather], Evaluate]] = []

        def aggregate(call: Call) -> Evaluate | None:
            if call.name not in AGGREGATES:
                return None
            gathers.append(_gather(call, self._compile))
            slot = str(len(gathers) - 1)
            return lambda row: row.values.get(slot)

        outputs = []
        for output in command.outputs:
            before = len(gathers)
            outputs.append((output.name, compile_expression(output.expression, self.scope, aggregate=aggregate)))
            if len(gathers) == before:
                raise MalformedQuery(
                    f"stats: {output.name} holds none of the functions {', '.join(AGGREGATES)}",
                    command.span.start,
                    command.span.end,
                )
        self._close(Group(by, tuple(gathers), tuple(outputs)))
        names = [name for name, _ in (*by, *outputs)]
        self.scope.after_stats(names)
        self.columns = {name: _made(name) for name in names}
        self.parsed, self.chosen = [], None


def _note_newest_first(row: Row) -> bool:
    at, number = row.place
    row.key = (-at, -number)
    return True


def _note_oldest_first(row: Row) -> bool:
    row.key = row.place
    return True


class _Downwards:
    """Compares the other way round."""

    __slots__ = ("key",)

    def __init__(self, key: tuple[Any, ...]) -> None:
        self.key = key

    def __lt__(self, other: "_Downwards") -> bool:
        return other.key < self.key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Downwards) and other.key == self.key

    __hash__ = None  # type: ignore[assignment]


def _downwards(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a key of `sort_key`'s that sorts the other way round: rank, and a number or the parts of a text."""
    rank, *rest = key
    if rank == NUMBER_RANK:
        return -rank, -rest[0]
    return -rank, _Downwards(tuple(rest))


def _made(name: str) -> Evaluate:
    return lambda row: row.values.get(name)


def _gather(call: Call, compile_value: Callable[[Expression], Evaluate]) -> tuple[Callable[[], Gather], Evaluate]:
    made = AGGREGATES[call.name]
    place = call.span.start, call.span.end
    if call.name == "count" and not call.arguments:
        return made.make, lambda _: 1
    wanted = 2 if made.parameter else 1
    if call.star or len(call.arguments) != wanted:
        raise MalformedQuery(f"{call.name} takes {'a field and a number' if wanted == 2 else 'one field'}", *place)
    value = compile_value(call.arguments[0])
    if not made.parameter:
        return made.make, value
    last = call.arguments[1]
    percent = number_of(last.value) if isinstance(last, Literal) else None
    if percent is None or not 0 <= percent <= 100:
        raise MalformedQuery(f"{call.name}: the percentile must be a number between 0 and 100", *place)
    return lambda: made.make(percent), value


def _take_groups(subject: Evaluate, regex: Any, names: tuple[str, ...]) -> Step:
    search = regex.search

    def take(row: Row) -> bool:
        value = subject(row)
        match = None if value is None else search(shown(value))
        for name in names:
            row.values[name] = None if match is None else match[name]
        return True

    return take


def _take_parts(subject: Evaluate, parts: list[str], names: tuple[str, ...]) -> Step:
    def take(row: Row) -> bool:
        value = subject(row)
        found = None if value is None else _parts(shown(value), parts)
        for position, name in enumerate(names):
            row.values[name] = None if found is None else found[position]
        return True

    return take


def _parts(text: str, parts: list[str]) -> list[str] | None:
    """Return what the `*`s between fixed parts stand for, each as short as can be; a last one goes to the end."""
    begin = text.find(parts[0])
    if begin < 0:
        return None
    begin += len(parts[0])
    found = []
    for position, part in enumerate(parts[1:], 1):
        end = len(text) if not part and position == len(parts) - 1 else text.find(part, begin)
        if end < 0:
            return None
        found.append(text[begin:end])
        begin = end + len(part)
    return found
