"""Every tag named `homeport:*` is in the table of extensions and in the pages for users."""

import re
from pathlib import Path

import controlplane
from controlplane.api.ecs import extensions

ROOT = Path(controlplane.__file__).parents[1]
#: A constant that is a tag's name.
NAMED = re.compile(r'^_?[A-Z_]+(?:: Final)? = "(homeport:[a-z-]+)"', re.MULTILINE)


def of_the_source() -> set[str]:
    return {tag for path in Path(controlplane.__file__).parent.rglob("*.py") for tag in NAMED.findall(path.read_text())}


def of_the_table() -> set[str]:
    return set(re.findall(r"^\| (homeport:[a-z-]+) \|", extensions.__doc__ or "", re.MULTILINE))


def test_the_source_names_tags() -> None:
    assert {"homeport:timeout", "homeport:restart-attempt-period"} <= of_the_source()


def test_every_tag_is_in_the_table() -> None:
    assert of_the_source() - of_the_table() == set()


def test_every_tag_of_the_table_is_in_a_page_for_users() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert {tag for tag in of_the_table() if f"`{tag}`" not in pages} == set()
