"""Writes the fleet's figures of bench/results.json into the README: `python -m bench.fleet.page`."""

import json
from pathlib import Path
from typing import Final

from bench.fleet.growth import table

__all__ = ["BEGIN", "END", "PAGE", "RESULTS", "rewritten"]

BEGIN: Final = "<!-- figures: written by python -m bench.fleet.page -->"
END: Final = "<!-- end of figures -->"
PAGE: Final = Path(__file__).parents[2] / "README.md"
RESULTS: Final = Path(__file__).parents[1] / "results.json"


def rewritten(page: str, figures: str) -> str:
    """Return the page with these figures in their place."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"the page has no place for figures: {BEGIN} ... {END}"
    return f"{before}{BEGIN}\n\n{figures.strip()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(), table(json.loads(RESULTS.read_text())["fleet"])))
