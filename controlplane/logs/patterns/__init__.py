"""CloudWatch Logs' filter patterns, turned once into a predicate on a message. Pure.

A pattern is one of three languages, told apart by how it begins: `{` selects properties of JSON, `[` fields that
blanks delimit, everything else is terms. Regular expressions are RE2's, which match in linear time: no pattern of a
request can stall the process, whatever the messages hold.
"""

from controlplane.logs.patterns.errors import PatternError
from controlplane.logs.patterns.pattern import MAX_PATTERN_LENGTH, FilterPattern, parse_pattern

__all__ = ["MAX_PATTERN_LENGTH", "FilterPattern", "PatternError", "parse_pattern"]
