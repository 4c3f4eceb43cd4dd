"""The reference: work that never changes, in the same run. What a path costs is told as a multiple of it.

So a count from another Python or processor can be compared: what makes all code dearer, or all of C's, makes this
dearer too. It is what the paths are made of: objects, dictionaries and calls in Python; JSON, hashes and SQLite in C.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace

from bench.hotpaths.model import Path, Round

__all__ = ["REFERENCE"]

_ROWS = 200
_NAMED = re.compile(r"item-(\d+)/(\w+)")


@dataclass(frozen=True, slots=True)
class _Item:
    name: str
    size: int
    tags: dict[str, str]


def _in_python() -> int:
    items = [_Item(f"item-{number}/main", number % 7, {"number": str(number)}) for number in range(_ROWS)]
    by_name = {item.name: replace(item, size=item.size + 1) for item in items}
    found = [match for name in by_name if (match := _NAMED.fullmatch(name)) is not None]
    ranked = sorted(by_name.values(), key=lambda item: (item.size, item.name))
    return sum(int(match[1]) for match in found) + sum(item.size for item in ranked if item.tags["number"] != "3")


def _in_c(connection: sqlite3.Connection) -> None:
    documents = [{"id": number, "names": ["a", "b", "c"], "of": {"text": "x" * 100}} for number in range(_ROWS)]
    texts = [json.dumps(document) for document in documents]
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    assert [json.loads(text) for text in texts] == documents
    connection.execute("BEGIN")
    connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", zip(digests, texts, strict=True))
    connection.execute("COMMIT")


@asynccontextmanager
async def _prepare() -> AsyncIterator[Round]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE rows (key TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID")

        async def once() -> None:
            for _ in range(_ROUNDS):
                _in_python()
                _in_c(connection)

        yield once


_ROUNDS = 5
REFERENCE = Path("reference", _ROUNDS, _prepare)
