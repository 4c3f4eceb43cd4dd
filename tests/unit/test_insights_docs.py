"""docs/logs.md says what Logs Insights can do: every function, command and field, and what is refused."""

import re
from pathlib import Path

from controlplane.logs.insights.aggregates import AGGREGATES
from controlplane.logs.insights.expressions import SYSTEM_FIELDS
from controlplane.logs.insights.functions import FUNCTIONS
from controlplane.logs.insights.parser import COMMANDS, UNSUPPORTED

TEXT = (Path(__file__).parents[2] / "docs" / "logs.md").read_text()
SECTION = re.sub(r"`` .*? ``", "", TEXT[TEXT.index("## Logs Insights") :])
NAMED = {word.lower() for quoted in re.findall(r"`([^`]+)`", SECTION) for word in re.findall(r"[@\w]+", quoted)}


def test_everything_that_is_there_is_named() -> None:
    there = {*FUNCTIONS, *AGGREGATES, *COMMANDS, *(name.lower() for name in SYSTEM_FIELDS), "bin", "now"}
    assert there - NAMED == set()


def test_what_is_refused_is_named() -> None:
    assert set() == UNSUPPORTED - NAMED
