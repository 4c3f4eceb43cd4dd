"""A transaction is one event-loop turn: nothing in its block may let others run. Checked over the whole source."""

import ast
from pathlib import Path

import pytest

import controlplane

SOURCES = sorted(Path(controlplane.__file__).parent.rglob("*.py"))
LETS_OTHERS_RUN = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)


def is_transaction(block: ast.With) -> bool:
    calls = [item.context_expr for item in block.items if isinstance(item.context_expr, ast.Call)]
    return any(isinstance(call.func, ast.Attribute) and call.func.attr == "transaction" for call in calls)


def breaches(source: str) -> list[int]:
    """Return the lines within transactions at which another coroutine might run."""
    blocks = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.With) and is_transaction(node)]
    inside = [node for block in blocks for node in ast.walk(block)]
    return [node.lineno for node in inside if isinstance(node, LETS_OTHERS_RUN)]


def test_no_transaction_spans_turns() -> None:
    assert {str(path): found for path in SOURCES if (found := breaches(path.read_text()))} == {}


@pytest.mark.parametrize("statement", ["await sleep(1)", "yield 1", "async with lock: pass"])
def test_a_breach_is_found(statement: str) -> None:
    source = f"async def f():\n    with state.transaction() as t:\n        t.put(1)\n        {statement}\n"
    assert breaches(source) == [4]


def test_the_sources_have_transactions() -> None:
    assert sum("transaction()" in path.read_text() for path in SOURCES) > 5
