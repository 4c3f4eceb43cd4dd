"""Writes the figures of bench/results.json into docs/peers.md and the README: `python -m bench.peers.page`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench.common import Json

__all__ = ["BEGIN", "END", "PAGES", "RESULTS", "brief", "render", "rewritten"]

RESULTS: Final = Path(__file__).parents[1] / "results.json"
#: What is between them is written here, the rest of the page by people.
BEGIN: Final = "<!-- figures: written by python -m bench.peers.page -->"
END: Final = "<!-- end of figures -->"

_WHAT: Final = {
    "start_20": "start a service of 20, until the last runs",
    "recover_one": "a container is killed: until another runs in its place",
    "scale_20_to_40": "scale from 20 to 40, until 40 run",
    "scale_40_to_20": "scale from 40 to 20, until 20 are left",
    "roll_20": "roll 20, until only new ones run",
    "roll_20_said_done": "roll 20, until the orchestrator itself calls it complete",
}
_WHO: Final = {
    "engine": "bare Engine",
    "homeport": "Homeport",
    "homeport_at_once": "Homeport, `homeport:min-healthy-time` 0",
    "swarm": "Swarm",
    "swarm_no_delay": "Swarm, `--restart-delay 0s`",
    "swarm_at_once": "Swarm, `--update-parallelism 0 --update-order start-first`",
}
#: What the README shows, and whose figures are Swarm at its fastest.
_BRIEF: Final = {
    "start_20": "",
    "recover_one": "swarm_no_delay",
    "scale_20_to_40": "",
    "scale_40_to_20": "",
    "roll_20": "swarm_at_once",
    "roll_20_said_done": "swarm_at_once",
}


def rewritten(page: str, figures: str) -> str:
    """Return the page with these figures in place of those it has."""
    head, _, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert end, f"the page has no place for figures: {BEGIN} ... {END}"
    return f"{head}{BEGIN}\n\n{figures}\n\n{END}{tail}"


def brief(peers: Json) -> str:
    """Return the README's table: medians in seconds, and in brackets the multiple of the bare Engine's."""
    lines = [
        "| services of small containers | bare Engine | Homeport | Swarm by default | Swarm at its fastest |",
        "| --- | --- | --- | --- | --- |",
    ]
    for what, fastest in _BRIEF.items():
        of = peers["services"][what]
        cells = " | ".join(_brief_cell(of, whose) for whose in ("engine", "homeport", "swarm", fastest))
        lines.append(f"| {_WHAT[what]} | {cells} |")
    return "\n".join(lines)


def _brief_cell(of: Json, whose: str) -> str:
    if f"{whose}_s" not in of:
        return ""
    ratio = of.get(f"{whose}_to_engine")
    return f"{of[f'{whose}_s']['median']:.1f} s" + (f" ({ratio['median']:.2f})" if ratio else "")


def render(peers: Json) -> str:
    """Return the figures as Markdown: medians, with the least and the most in brackets."""
    machine = peers["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in peers["versions"].items())
    lines = [
        f"Measured on {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}, {versions}.",
        f"Load average at the end, this run's own load included: {machine['load_average']}.",
        "Medians; in brackets the least and the most of all rounds.",
        "",
        _concurrency(peers["services"]["engine_start_20_s_by_requests_at_once"]),
        "",
        "| services of small containers | who | seconds | × the bare Engine | rounds |",
        "| --- | --- | --- | --- | --- |",
        *_services(peers["services"]),
        "",
        f"| {peers['idle']['containers']} containers, at rest | CPU, % of a core | beyond bare | RSS | beyond |",
        "| --- | --- | --- | --- | --- |",
        *_idle(peers["idle"]),
        "",
        "| API: operation, client | who | requests/s | p50 ms | p99 ms | Homeport × moto |",
        "| --- | --- | --- | --- | --- | --- |",
        *_api(peers["api"]),
    ]
    return "\n".join(lines)


def _concurrency(took: dict[str, float]) -> str:
    """Say which number of requests at once suits the bare Engine, which then has so many at a time."""
    tried = ", ".join(f"{seconds:.1f} s with {many}" for many, seconds in took.items())
    return (
        f"The bare Engine gets {min(took, key=took.__getitem__)} requests at once: it started 20 containers in {tried}."
    )


def _services(services: Json) -> Iterator[str]:
    for what, words in _WHAT.items():
        for whose, name in _WHO.items():
            if seconds := services[what].get(f"{whose}_s"):
                ratio = services[what].get(f"{whose}_to_engine")
                yield f"| {words} | {name} | {_spread(seconds)} | {_spread(ratio)} | {seconds['runs']} |"
                words = ""


def _idle(idle: Json) -> Iterator[str]:
    for whose in ("engine", "homeport", "swarm"):
        of = idle[whose]
        beyond = f"{of['rss_mb_beyond_engine']:.0f} MB" if "rss_mb_beyond_engine" in of else ""
        cpu = f"{_spread(of['cpu_percent_of_a_core'])} | {_spread(of.get('cpu_beyond_engine'))}"
        yield f"| {_WHO[whose]} | {cpu} | {of['rss_mb']:.0f} MB | {beyond} |"


def _api(api: Json) -> Iterator[str]:
    for what, sides in api.items():
        for whose, words, ratio in (("Homeport", what, _spread(sides["homeport_to_moto"])), ("moto", "", "")):
            of = sides[whose.lower()]
            cells = " | ".join(_spread(of[member]) for member in ("per_second", "p50_ms", "p99_ms"))
            yield f"| {words} | {whose} | {cells} | {ratio} |"


def _spread(figures: Json | None) -> str:
    """Return `median (min to max)`, with two digits or three that say something."""
    if figures is None:
        return ""
    median, least, most = (_short(figures[name]) for name in ("median", "min", "max"))
    return f"{median} ({least} to {most})"


def _short(value: float) -> str:
    for below, digits in ((10, 2), (100, 1)):
        if abs(value) < below:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


#: Where figures go, and which.
PAGES: Final[dict[Path, Callable[[Json], str]]] = {
    Path(__file__).parents[2] / "docs" / "peers.md": render,
    Path(__file__).parents[2] / "README.md": brief,
}


if __name__ == "__main__":
    measured = json.loads(RESULTS.read_text())["peers"]
    for path, figures_of in PAGES.items():
        path.write_text(rewritten(path.read_text(), figures_of(measured)))
