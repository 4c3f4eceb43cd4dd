"""One run: a site, a load, the plan's faults, rest, and the judge."""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from tests.chaos.facts import Facts, Happened
from tests.chaos.faults import begin
from tests.chaos.gather import gather, kept_lines, said_lines
from tests.chaos.judge import Verdict, judge, judge_lines
from tests.chaos.keeper import Exit
from tests.chaos.ledger import Ledger
from tests.chaos.load import ONLY_MEMBERS, SERVICE_TAGS, Load
from tests.chaos.plan import Fault, Kind
from tests.chaos.recovery import Recoveries, Recovery
from tests.chaos.site import Site, site
from tests.chaos.watch import EngineWatch, Watch
from tests.chaos.workload import ANCHOR, ONLY, register_all, register_only
from tests.e2e.harness import eventually

__all__ = ["Result", "run"]

_REST_WITHIN_S: Final = 240.0
_LOOK_EVERY_S: Final = 3.0
#: How long after a full disk has room again its daemon may still end of it.
_AFTERMATH_S: Final = 10.0
_ANCHORS: Final = 4


@dataclass(kw_only=True)
class Result:
    """What came of a run; `losses` empty: nothing was lost."""

    plan: Sequence[Fault]
    ledger: Ledger
    losses: list[str] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    recoveries: Sequence[Recovery] = ()
    happened: Sequence[Happened] = ()
    exits: Sequence[Exit] = ()
    began_at: float = 0.0
    load_s: float = 0.0
    rest_s: float = 0.0
    tasks: int = 0
    containers: int = 0
    #: How many containers there were, one after another, of the service that may have one.
    only: int = 0
    polls: int = 0


def run(
    directory: Path, plan: Sequence[Fault], *, minutes: float, hosts: int, image: str, seed: int, pace: float
) -> Result:
    """Run it and judge it; everything that was made is gone afterwards, save the logs in `directory`."""
    with site(directory, hosts=hosts, image=image, seed=seed) as made:
        result = Result(plan=plan, ledger=Ledger())
        # Clients are for any number of threads. These wait less long for an answer than is usual.
        client = made.fleet.client("ecs", connect_timeout=2, read_timeout=6)
        revisions = register_all(made.fleet, image, made.ground)
        load = Load(client, result.ledger, seed=seed, pace=pace)
        recoveries = Recoveries(made, client, load.caller)
        watch, engines = Watch(client), EngineWatch(made.hosts.values())
        _create(made, load, ANCHOR, revisions[0], count=_ANCHORS, tags=SERVICE_TAGS)
        _create(made, load, ONLY, register_only(made.fleet, image, made.ground), count=1, **ONLY_MEMBERS)
        watch.start()
        engines.start()
        result.began_at = time.monotonic()
        instances = [host.instance for host in made.hosts.values()]
        with load.running(revisions=revisions, instances=instances):
            result.happened = _carry_out(made, plan, result.began_at, recoveries)
            time.sleep(max(0.0, result.began_at + minutes * 60 - time.monotonic()))
        result.load_s = time.monotonic() - result.began_at
        recoveries.wait()
        result.recoveries = recoveries.found
        _come_to_rest(made, result, watch, engines)
        watch.stop()
        engines.stop()
        result.polls = watch.polls
        result.exits = [each for keeper in made.keepers for each in keeper.exits]
        result.losses += [*watch.backwards, *load.broken, *result.ledger.server_errors, *_unexcused(result)]
        return result


def _create(made: Site, load: Load, name: str, definition: str, *, count: int, **members: Any) -> None:
    """Create a service, and wait until it is steady."""
    request = {"serviceName": name, "taskDefinition": definition, "desiredCount": count, **members}
    created = load.caller().call("create_service", name, **request)
    assert created.made, created

    def steady() -> bool:
        (found,) = made.fleet.ecs.describe_services(services=[name])["services"]
        return bool(found["runningCount"] == count and found["deployments"][0]["rolloutState"] == "COMPLETED")

    eventually(steady, within_s=60)


def _carry_out(made: Site, plan: Sequence[Fault], began_at: float, recoveries: Recoveries) -> list[Happened]:
    """Carry out the plan; return when all its faults are over."""
    happened: list[Happened] = []
    given_up = threading.Event()

    def wait_until(moment_s: float) -> bool:
        return given_up.wait(max(0.0, began_at + moment_s - time.monotonic()))

    def carry_out(fault: Fault) -> None:
        if wait_until(fault.at_s):
            return
        begun_at = time.monotonic()
        end = begin(made, fault)
        wait_until(fault.end_s)
        end()
        happened.append(Happened(fault, begun_at, time.monotonic()))
        _say(f"{fault.at_s:7.1f} s  {fault.name} on {fault.node} for {fault.lasts_s} s, {fault.amount:g}")
        recoveries.begin(happened[-1])

    with ThreadPoolExecutor(max(1, len(plan))) as pool:
        try:
            for done in [pool.submit(carry_out, fault) for fault in plan]:
                done.result()
        except BaseException:
            given_up.set()
            raise
    return happened


def _come_to_rest(made: Site, result: Result, watch: Watch, engines: EngineWatch) -> None:
    """Judge until there is nothing amiss, or the cluster has had its time; then judge what containers said."""
    began_at = time.monotonic()
    requests = list(result.ledger.requests())
    while True:
        verdict, facts = _look(made, requests, result, watch, engines)
        result.rest_s = time.monotonic() - began_at
        if not verdict.losses or result.rest_s > _REST_WITHIN_S:
            break
        time.sleep(_LOOK_EVERY_S)
    if facts is None:
        result.losses += verdict.losses
        return
    lines = _look_at_lines(made, requests, facts)
    result.verdict = Verdict(verdict.losses + lines.losses, verdict.excused + lines.excused)
    result.losses += result.verdict.losses
    result.tasks, result.containers, result.only = len(facts.tasks), len(facts.containers), len(facts.only)


def _look(
    made: Site, requests: Sequence[Any], result: Result, watch: Watch, engines: EngineWatch
) -> tuple[Verdict, Facts | None]:
    try:
        facts = gather(
            made,
            stopped_at=dict(watch.stopped_at),
            happened=result.happened,
            exit_codes=dict(engines.exit_codes),
        )
    except (AssertionError, BotoCoreError, ClientError, OSError, subprocess.TimeoutExpired) as error:
        return Verdict([f"somebody does not answer: {error!r}"]), None
    return judge(requests, facts), facts


def _look_at_lines(made: Site, requests: Sequence[Any], facts: Facts) -> Verdict:
    facts = replace(facts, kept=kept_lines(made, requests))
    amiss = [arn for arn, lines in facts.kept.items() if len(lines) != 1 and arn in facts.tasks]
    return judge_lines(requests, replace(facts, said=said_lines(made, facts, amiss)))


def _unexcused(result: Result) -> list[str]:
    """Daemons that ended by themselves, though their disks had room."""
    full = [each for each in result.happened if each.fault.kind is Kind.FILL]
    return [
        f"{each.daemon} ended by itself with status {each.status}, {each.at - result.began_at:.1f} s into the run"
        for each in result.exits
        if not any(
            each.daemon == fill.fault.node and fill.begun_at <= each.at <= fill.ended_at + _AFTERMATH_S for fill in full
        )
    ]


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
