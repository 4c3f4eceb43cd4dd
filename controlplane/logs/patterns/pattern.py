"""One filter pattern, of whichever of the three languages."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from controlplane.logs.patterns.errors import PatternError
from controlplane.logs.patterns.fields import parse_fields
from controlplane.logs.patterns.properties import parse_properties
from controlplane.logs.patterns.terms import parse_terms

__all__ = ["MAX_PATTERN_LENGTH", "FilterPattern", "parse_pattern"]

#: CloudWatch's limit.
MAX_PATTERN_LENGTH: Final = 1024


@dataclass(frozen=True, slots=True)
class FilterPattern:
    """A parsed pattern. `extract` gives the fields of a message that matches, as TestMetricFilter shows them."""

    matches: Callable[[str], bool]
    extract: Callable[[str], dict[str, str]]


@lru_cache(maxsize=1024)
def parse_pattern(text: str) -> FilterPattern:
    """Parse a filter pattern; an empty one matches everything.

    Raises PatternError with the position of what can't be understood.
    """
    if len(text) > MAX_PATTERN_LENGTH:
        raise PatternError(f"it has {len(text)} characters; {MAX_PATTERN_LENGTH} are allowed")
    match text.lstrip()[:1]:
        case "":
            return FilterPattern(lambda _: True, _nothing)
        case "{":
            return FilterPattern(parse_properties(text), _nothing)
        case "[":
            fields = parse_fields(text)
            return FilterPattern(fields.matches, fields.extract)
        case _:
            return FilterPattern(parse_terms(text), _nothing)


def _nothing(_: str) -> dict[str, str]:
    return {}
