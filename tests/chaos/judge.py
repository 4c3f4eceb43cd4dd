"""Is everything accounted for? Decided purely, from ledger and facts: what is lost, and what a fault excuses."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

from tests.chaos.expected import expected_services
from tests.chaos.facts import ContainerFact, Facts, TaskFact
from tests.chaos.ledger import Outcome, Request
from tests.chaos.plan import Kind, Part
from tests.chaos.workload import MEMORY_MIB, ONLY_LOST_AFTER_S

__all__ = ["Verdict", "judge", "judge_lines"]

_SHORT_ID: Final = 12
#: How much longer than itself a fault of an Engine is felt: dockerd loads its containers, the agent listens anew.
_AFTERMATH_S: Final = 30.0
#: Faults of an agent that leave nobody there to stop anything.
_ABSENT: Final = frozenset({Kind.KILL, Kind.STOP, Kind.FREEZE, Kind.FILL})


@dataclass(slots=True)
class Verdict:
    """`losses`: what must not be, a sentence each. `excused`: how often each kind of end was forgiven."""

    losses: list[str] = field(default_factory=list)
    excused: Counter[str] = field(default_factory=Counter)


class _Case:
    """The facts, indexed for the judge."""

    def __init__(self, requests: Sequence[Request], facts: Facts) -> None:
        self.requests = requests
        self.facts = facts
        self.containers: defaultdict[str, list[ContainerFact]] = defaultdict(list)
        for container in facts.containers:
            self.containers[container.task].append(container)
        self.started: defaultdict[str, list[TaskFact]] = defaultdict(list)
        for task in facts.tasks.values():
            self.started[task.started_by].append(task)
        stops = [request for request in requests if request.operation == "stop_task"]
        self.stopped = {each.sent["task"] for each in stops if each.outcome is Outcome.ACCEPTED}
        self.perhaps_stopped = {each.sent["task"] for each in stops if each.unheard_at} | self.stopped
        self._hosts = {host.instance: host for host in facts.hosts}

    def ends(self, task: TaskFact) -> Sequence[int]:
        """The exit codes that the task's container wrote down before it ended."""
        return self.facts.marks.ends.get(task.runtime_id[:_SHORT_ID], ())

    def engine_says(self, task: TaskFact) -> int | None:
        """The exit code that its Engine shows, or showed before the container was cleaned up."""
        now = next((each.exit_code for each in self.containers[task.id] if each.id == task.runtime_id), None)
        return self.facts.exit_codes.get(task.runtime_id) if now is None else now

    def is_there(self, task: TaskFact) -> bool:
        """Whether its Engine still has the task's container."""
        return any(each.id == task.runtime_id for each in self.containers[task.id])

    def engine_fault(self, task: TaskFact, since: float, *, fatal: bool) -> str:
        """Name a fault of the task's Engine in its life; `fatal`: one that ends the containers which run."""
        host = self._hosts.get(task.host)
        until = self.facts.stopped_at.get(task.arn, float("inf"))
        for each in self.facts.happened:
            fault = each.fault
            if host is None or fault.node != host.name or fault.part is not Part.ENGINE:
                continue
            if fatal and (host.live_restore or fault.kind is Kind.FREEZE):
                continue
            if each.begun_at < until and since < each.ended_at + _AFTERMATH_S:
                return fault.name
        return ""

    def absence(self, container: str, since: float, until: float) -> str:
        """Name a fault, between two moments, of those who could have stopped a container: its agent and its Engine."""
        of_host = {task.host for task in self.facts.tasks.values() if task.runtime_id.startswith(container)}
        nodes = {host.name for instance, host in self._hosts.items() if instance in of_host}
        for each in self.facts.happened:
            fault = each.fault
            nobody = fault.part is Part.ENGINE or fault.kind in _ABSENT
            if nobody and fault.node in nodes and each.begun_at < until and since < each.ended_at + _AFTERMATH_S:
                return fault.name
        return ""


def judge(requests: Sequence[Request], facts: Facts) -> Verdict:
    """Judge a cluster at rest: all but what containers said."""
    verdict = Verdict()
    case = _Case(requests, facts)
    for request in requests:
        if request.operation == "run_task":
            verdict.losses += _made(case, request)
            for arn in request.made:
                if arn in facts.tasks:
                    _judge_task(case, request, facts.tasks[arn], verdict)
    verdict.losses += [*_stops(facts), *_owners(case), *_starts(case), *_services(case), *_hosts(case)]
    _judge_only(case, verdict)
    return verdict


def _made(case: _Case, request: Request) -> Iterator[str]:
    """Each accepted request's tasks are there, and no more."""
    there = {task.arn for task in case.started[request.token]}
    for arn in set(request.made) - there:
        yield f"{arn} of {request.token} was accepted and is gone"
    if request.outcome is Outcome.ACCEPTED:
        # An attempt that was not heard of may be carried out after one that was answered with failures.
        late = bool(request.unheard_at) and len(there) <= request.sent["count"]
        if (extra := there - set(request.made)) and not late:
            yield f"{request.token} has tasks that its answer did not name: {sorted(extra)}"
    elif len(there) > (request.sent["count"] if request.unheard_at else 0):
        yield f"{request.token} was {request.outcome} and has {len(there)} tasks"


def _judge_task(case: _Case, request: Request, task: TaskFact, verdict: Verdict) -> None:
    problem, excuse = _end(case, request, task)
    if problem and excuse:
        verdict.excused[f"{problem}: {excuse}"] += 1
    elif problem:
        verdict.losses.append(f"{task.arn} ({request.token}): {problem}; {task}")


def _end(case: _Case, request: Request, task: TaskFact) -> tuple[str, str]:
    """Return what is wrong with how a task that was run by itself has ended, and what excuses it ("": nothing)."""
    code: int | None = request.meant["code"]
    ends = case.ends(task)
    if task.last != "STOPPED":
        if task.arn in case.stopped:
            return "was to be stopped and isn't", ""
        if code is not None:
            return f"should have ended and is {task.last}", ""
        return ("", "") if task.runs else (f"should be running and is {task.last}", "")
    if ends:
        if task.exit_code == ends[-1] == code:
            return "", ""
        said = case.engine_says(task)
        wrong = f"ended with {ends[-1]} and is said to have ended with {task.exit_code}"
        return wrong, "so says its Engine" if said == task.exit_code else ""
    if task.stop_code == "UserInitiated":
        return ("", "") if task.arn in case.perhaps_stopped else ("was stopped, and nobody asked", "")
    if task.stop_code == "TaskFailedToStart":
        return "failed to start", case.engine_fault(task, request.at, fatal=False)
    if task.arn in case.perhaps_stopped and task.exit_code is not None:
        return "", ""
    return f"ended with {task.exit_code} before its time", case.engine_fault(task, request.at, fatal=True)


def _stops(facts: Facts) -> Iterator[str]:
    """Every stop carries a reason."""
    for task in facts.tasks.values():
        if task.last == "STOPPED" and not (task.stop_code and task.stopped_reason):
            yield f"{task.arn} stopped without a reason; {task}"


def _owners(case: _Case) -> Iterator[str]:
    """Each container has a task, of its host, and runs as long as that does; each running task has its container."""
    tasks = {task.id: task for task in case.facts.tasks.values()}
    for container in case.facts.containers:
        owner = tasks.get(container.task)
        if owner is None:
            yield f"container {container.id[:_SHORT_ID]} has no task: {container}"
        elif owner.host != container.host:
            yield f"container {container.id[:_SHORT_ID]} is on another host than its task: {container}, {owner}"
        elif container.running and not owner.runs:
            yield f"container {container.id[:_SHORT_ID]} runs and its task doesn't: {owner}"
    running = {container.id for container in case.facts.containers if container.running}
    for task in tasks.values():
        if task.last == "RUNNING" and task.runtime_id not in running:
            yield f"{task.arn} is RUNNING without a container: {task}"


def _starts(case: _Case) -> Iterator[str]:
    """Nothing ran twice."""
    for container, tokens in case.facts.marks.starts.items():
        if len(tokens) > 1:
            yield f"container {container} was started {len(tokens)} times: {tokens}"
    for task, containers in case.containers.items():
        if len(containers) > 1:
            yield f"task {task} has {len(containers)} containers"
    began = Counter(tokens[0] for tokens in case.facts.marks.starts.values())
    for request in case.requests:
        if request.operation == "run_task" and began[request.token] > len(case.started[request.token]):
            yield f"{request.token} ran {began[request.token]} times for {len(case.started[request.token])} tasks"


def _judge_only(case: _Case, verdict: Verdict) -> None:
    """Of that of which there may be one, never two ran at a time; save where nobody was there to stop the older one."""
    if not case.facts.only:
        verdict.losses.append("of what should run once nothing ever ran")
    for older, younger in combinations(case.facts.only, 2):
        if younger.first > older.last:
            continue
        problem = "two ran at a time of what may run once"
        if fault := case.absence(older.container, younger.first - ONLY_LOST_AFTER_S, younger.first):
            verdict.excused[f"{problem}: {fault}"] += 1
        else:
            both_s = min(older.last, younger.last) - younger.first
            verdict.losses.append(f"{problem}, for {both_s:.1f} s: {older}, {younger}")


def _services(case: _Case) -> Iterator[str]:
    tasks: defaultdict[str, list[TaskFact]] = defaultdict(list)
    for task in case.facts.tasks.values():
        if task.last != "STOPPED":
            tasks[task.group.removeprefix("service:")].append(task)
    for name, expected in expected_services(case.requests).items():
        found = case.facts.services.get(name)
        there = found is not None and found.status == "ACTIVE"
        if there not in expected.exists:
            yield f"service {name} {'is' if there else 'is not'} there; {found}"
        if found is None or not there:
            if tasks[name]:
                yield f"service {name} is gone and has {len(tasks[name])} tasks: {[task.arn for task in tasks[name]]}"
            continue
        revision = found.definition.rsplit("/", 1)[-1]
        if found.desired not in expected.count or revision not in expected.definition:
            yield f"service {name} is not what was asked for: {found}, expected {expected}"
        settled = (found.running, found.pending, found.deployments, found.rollout)
        if settled != (found.desired, 0, 1, "COMPLETED"):
            yield f"service {name} has not settled: {found}"
        good = [each for each in tasks[name] if each.runs and each.definition == found.definition]
        if len(good) != found.desired or len(tasks[name]) != found.desired:
            yield f"service {name} wants {found.desired} tasks and has {len(good)} of {len(tasks[name])}: {found}"
        if any(task.health == "UNHEALTHY" for task in tasks[name]):
            yield f"service {name} has unhealthy tasks"


def _hosts(case: _Case) -> Iterator[str]:
    live = Counter(task.host for task in case.facts.tasks.values() if task.last != "STOPPED")
    # Whatever was accepted since: nobody knows when an attempt that was not heard of is carried out.
    perhaps_drained = {
        instance
        for request in case.requests
        if request.sent.get("status") == "DRAINING" and request.unheard_at
        for instance in request.sent["containerInstances"]
    }
    for host in case.facts.hosts:
        drained = host.status == "DRAINING" and host.instance in perhaps_drained
        if not host.connected or host.health != "OK" or not (host.status == "ACTIVE" or drained):
            yield f"{host.name} is not well: {host}"
        if not host.foreign:
            yield f"{host.name}: what isn't ours is gone, changed or stopped"
        if host.used_mib != live[host.instance] * MEMORY_MIB:
            yield f"{host.name} has {live[host.instance]} tasks, and {host.used_mib} MiB are held for them"


def judge_lines(requests: Sequence[Request], facts: Facts) -> Verdict:
    """Judge what is kept of what containers said: one line each, once. A line that the Engine lost is excused."""
    verdict = Verdict()
    case = _Case(requests, facts)
    for request in requests:
        line = f"said {request.token}"
        for arn in request.made if request.operation == "run_task" else ():
            task = facts.tasks.get(arn)
            if task is None:
                continue
            began = task.runtime_id[:_SHORT_ID] in facts.marks.starts
            kept = list(facts.kept.get(arn, ())).count(line)
            if kept > 1 or (kept == 0 and case.ends(task)):
                said = list(facts.said.get(arn, ())).count(line) if case.is_there(task) else None
                _judge_line(verdict, arn, line, kept, said, case.engine_fault(task, request.at, fatal=False))
            elif kept and not began:
                verdict.losses.append(f"{arn}: {line!r} is kept, and its container never started")
    return verdict


def _judge_line(verdict: Verdict, arn: str, line: str, kept: int, said: int | None, fault: str) -> None:
    """`said`: how often its Engine has the line; None if it has the container no more. `fault`: of that Engine."""
    if kept == said:
        verdict.excused[f"{line.split()[0]} {said} times: so its Engine has it"] += 1
    elif said is None and not kept and fault:
        verdict.excused[f"not kept, and its container is cleaned up: {fault}"] += 1
    else:
        has = "has the container no more" if said is None else f"has it {said} times"
        verdict.losses.append(f"{arn}: {line!r} is kept {kept} times; its Engine {has}")
