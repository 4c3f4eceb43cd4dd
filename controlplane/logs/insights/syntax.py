"""What a query says, as a tree. `start` and `end` are offsets in its text, for messages."""

from dataclasses import dataclass

__all__ = [
    "Among",
    "Arithmetic",
    "Boolean",
    "Call",
    "Command",
    "Compare",
    "Dedup",
    "Display",
    "Expression",
    "Field",
    "Fields",
    "Filter",
    "Like",
    "Limit",
    "Literal",
    "MalformedQuery",
    "Not",
    "Output",
    "Parse",
    "Pattern",
    "Period",
    "Sort",
    "SortKey",
    "Span",
    "Stats",
]


class MalformedQuery(ValueError):
    """A query can't be understood, or asks for what isn't supported: why, and between which offsets of its text."""

    def __init__(self, message: str, start: int, end: int) -> None:
        super().__init__(message)
        self.message = message
        self.start = start
        self.end = end


@dataclass(frozen=True, slots=True)
class Span:
    """Where something stands in the query's text."""

    start: int
    end: int


# ---------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True)
class Field:
    """A field. `name` as it is shown; `path`: its parts, for a field found in a JSON event."""

    span: Span
    name: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Period:
    """A length of time: `count` of a unit out of ms, s, m, h, d, w, mo, q, y."""

    count: int
    unit: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that is written down."""

    span: Span
    value: str | int | float | bool | Period


@dataclass(frozen=True, slots=True)
class Call:
    """A function's call. `text` is how it was written, less white space: the name of its column. `star`: of `*`."""

    span: Span
    name: str
    arguments: tuple["Expression", ...]
    text: str
    star: bool = False


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`left` + - * / % ^ `right`."""

    span: Span
    operator: str
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Compare:
    """`left` = != < <= > >= `right`."""

    span: Span
    operator: str
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Among:
    """`subject` [not] in `values`."""

    span: Span
    subject: "Expression"
    values: tuple["Expression", ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Pattern:
    """What `like`, `=~` and `parse` look for: a text, or a regular expression."""

    span: Span
    text: str
    regex: bool


@dataclass(frozen=True, slots=True)
class Like:
    """`subject` [not] like `pattern`."""

    span: Span
    subject: "Expression"
    pattern: Pattern
    negated: bool


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary of an expression."""

    span: Span
    operand: "Expression"


@dataclass(frozen=True, slots=True)
class Boolean:
    """All (`and`) or any (`or`) of several expressions."""

    span: Span
    operator: str
    operands: tuple["Expression", ...]


Expression = Field | Literal | Call | Arithmetic | Compare | Among | Like | Not | Boolean


# ---------------------------------------------------------------- commands


@dataclass(frozen=True, slots=True)
class Output:
    """An expression and the name of its column."""

    expression: Expression
    name: str


@dataclass(frozen=True, slots=True)
class Fields:
    """Adds columns."""

    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class Display:
    """Says which columns are shown, and no others."""

    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """Keeps rows of which something is true."""

    condition: Expression


@dataclass(frozen=True, slots=True)
class Parse:
    """Takes fields out of a text. `names`: of a glob's `*`s; a regular expression names its groups itself."""

    subject: Field
    pattern: Pattern
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """Makes one row of each group of rows."""

    span: Span
    outputs: tuple[Output, ...]
    by: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class SortKey:
    """What rows are sorted by."""

    expression: Expression
    descending: bool


@dataclass(frozen=True, slots=True)
class Sort:
    """Puts rows in order."""

    keys: tuple[SortKey, ...]


@dataclass(frozen=True, slots=True)
class Limit:
    """Keeps the first rows."""

    count: int


@dataclass(frozen=True, slots=True)
class Dedup:
    """Keeps the first row of each combination of values."""

    fields: tuple[Field, ...]


Command = Fields | Display | Filter | Parse | Stats | Sort | Limit | Dedup
