"""docs/services.md against the code: its tables say what is so, and say all of it."""

from pathlib import Path
from typing import Final

from controlplane.api.ecs import extensions, service_members, service_request
from controlplane.services import timing
from controlplane.services.model import Timing

PAGE: Final = Path(__file__).parents[2] / "docs" / "services.md"


def rows(heading: str) -> list[list[str]]:
    """The cells of the tables below a heading, without backticks and the tables' heads."""
    text = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def test_what_begins_a_deployment_and_what_doesnt() -> None:
    members = [row[0] for row in rows("What begins a deployment")]
    begins = {*service_request._REVISION, "taskDefinition", "capacityProviderStrategy"}
    changes = {*service_request._SETTINGS, "desiredCount", "deploymentConfiguration"}
    assert members == [*sorted(begins), *sorted(changes)]


def test_what_is_refused() -> None:
    told = {row[0]: row[1] for row in rows("What is refused")}
    del told["deploymentController CODE_DEPLOY"]
    assert told == dict(sorted(service_members._REFUSED.items()))


def test_the_tags() -> None:
    default = Timing()
    defaults = {
        timing.LOST_AFTER: default.lost_after_s,
        timing.MIN_HEALTHY_TIME: default.min_healthy_s,
        timing.PROGRESS_DEADLINE: default.progress_deadline_s,
    }
    times = [
        [tag, f"{least} to {most}", f"{defaults[tag]:.0f}"] for tag, (least, most) in sorted(timing._SECONDS.items())
    ]
    switches = [[tag, "true, false", "false"] for tag in timing._SWITCHES]
    assert [row[:3] for row in rows("Tags that Homeport reads")] == times + switches
    for tag in (*timing._SECONDS, *timing._SWITCHES):
        assert f"| {tag} | service" in (extensions.__doc__ or "")
