"""What chaos calls a loss, and what it excuses."""

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.expected import expected_services
from tests.chaos.facts import ContainerFact, Facts, Happened, HostFact, Marks, ServiceFact, Span, TaskFact, read_beats
from tests.chaos.judge import judge, judge_lines
from tests.chaos.ledger import Outcome, Request
from tests.chaos.plan import Fault, Kind, Part
from tests.chaos.watch import EngineWatch

ARN = "arn:aws:ecs:us-east-1:1:task/default/t1"
CONTAINER = "c0ffee000000" + "0" * 52
SHORT = CONTAINER[:12]
HOST = HostFact(
    name="host-1",
    instance="i1",
    connected=True,
    status="ACTIVE",
    health="OK",
    foreign=True,
    live_restore=True,
    used_mib=0,
)
DEFINITION = "arn:aws:ecs:us-east-1:1:task-definition/worker:1"
SERVICE = ServiceFact(
    name="s",
    status="ACTIVE",
    definition=DEFINITION,
    desired=1,
    running=1,
    pending=0,
    deployments=1,
    rollout="COMPLETED",
)
ENDED = TaskFact(
    arn=ARN,
    started_by="job",
    group="family:job",
    host="i1",
    definition="job:1",
    last="STOPPED",
    desired="STOPPED",
    health="UNKNOWN",
    stop_code="EssentialContainerExited",
    stopped_reason="Essential container in task exited",
    exit_code=3,
    container_reason="",
    runtime_id=CONTAINER,
)
RUNS = replace(ENDED, last="RUNNING", desired="RUNNING", stop_code="", stopped_reason="", exit_code=None)


def _container(**members: Any) -> ContainerFact:
    return ContainerFact(**{"id": CONTAINER, "host": "i1", "task": "t1", "running": False, "exit_code": 3, **members})


def _run(code: int | None = 3, **members: Any) -> Request:
    request = Request(operation="run_task", token="job", meant={"code": code}, sent={"count": 1}, at=100.0)
    answered: dict[str, Any] = {"outcome": Outcome.ACCEPTED, "made": [ARN], **members}
    for name, value in answered.items():
        setattr(request, name, value)
    return request


def _facts(task: TaskFact | None = ENDED, **members: Any) -> Facts:
    found: dict[str, Any] = {
        "tasks": {} if task is None else {task.arn: task},
        "containers": [] if task is None else [_container(running=task.last == "RUNNING")],
        "services": {},
        "hosts": [HOST if task is None or task.last == "STOPPED" else replace(HOST, used_mib=16)],
        "marks": Marks({SHORT: ["job"]}, {SHORT: [3]}),
        "only": [Span("only1", 1.0, 2.0)],
        **members,
    }
    return Facts(**found)


def _engine_fault(kind: Kind = Kind.KILL, *, begun_at: float = 110.0, ended_at: float = 115.0) -> Happened:
    fault = Fault(at_s=1, lasts_s=5, kind=kind, part=Part.ENGINE, node="host-1")
    return Happened(fault, begun_at, ended_at)


def _losses(request: Request, facts: Facts) -> list[str]:
    return judge([request], facts).losses


def test_a_job_that_ended_as_it_should_is_no_loss() -> None:
    assert _losses(_run(), _facts()) == []


@pytest.mark.parametrize(
    ("request_", "facts", "loss"),
    [
        (_run(), _facts(None, marks=Marks({}, {})), "was accepted and is gone"),
        (_run(made=[]), _facts(), "its answer did not name"),
        (_run(outcome=Outcome.REFUSED, made=[]), _facts(), "was refused and has 1 tasks"),
        (_run(), _facts(RUNS), "should have ended and is RUNNING"),
        (_run(), _facts(replace(ENDED, exit_code=137)), "is said to have ended with 137"),
        (_run(), _facts(replace(ENDED, exit_code=None)), "is said to have ended with None"),
        (_run(), _facts(replace(ENDED, stopped_reason="")), "stopped without a reason"),
        (_run(), _facts(marks=Marks({SHORT: ["job", "job"]}, {SHORT: [3]})), "was started 2 times"),
        (_run(), _facts(marks=Marks({SHORT: ["job"], "other": ["job"]}, {SHORT: [3]})), "ran 2 times for 1 tasks"),
        (_run(), _facts(containers=[_container(), _container(id="other")]), "has 2 containers"),
        (_run(), _facts(containers=[_container(running=True)]), "runs and its task doesn't"),
        (_run(), _facts(containers=[_container(task="t2")]), "has no task"),
        (_run(), _facts(containers=[_container(host="i2")]), "on another host than its task"),
        (_run(None), _facts(RUNS, containers=[]), "is RUNNING without a container"),
        (_run(), _facts(hosts=[replace(HOST, connected=False)]), "host-1 is not well"),
        (_run(), _facts(hosts=[replace(HOST, foreign=False)]), "what isn't ours"),
        (_run(), _facts(hosts=[replace(HOST, used_mib=16)]), "has 0 tasks, and 16 MiB are held for them"),
    ],
)
def test_what_is_lost(request_: Request, facts: Facts, loss: str) -> None:
    assert any(loss in each for each in _losses(request_, facts)), _losses(request_, facts)


def test_a_request_nobody_answered_may_have_been_carried_out_once() -> None:
    unanswered = _run(outcome=Outcome.UNANSWERED, made=[], unheard_at=120.0)
    assert _losses(unanswered, _facts()) == []
    assert _losses(unanswered, _facts(None, marks=Marks({}, {}))) == []
    twice = {ARN: ENDED, "arn/t2": replace(ENDED, arn="arn/t2", runtime_id="")}
    assert _losses(unanswered, _facts(tasks=twice)) == ["job was unanswered and has 2 tasks"]


def test_an_end_that_its_engine_tells_wrongly_is_excused() -> None:
    verdict = judge([_run()], _facts(replace(ENDED, exit_code=255), containers=[_container(exit_code=255)]))
    assert verdict.losses == []
    assert verdict.excused.total() == 1


def test_what_an_engine_showed_before_the_container_was_cleaned_up_counts() -> None:
    wrong = replace(ENDED, exit_code=255)
    assert "is said to have ended with 255" in _losses(_run(), _facts(wrong, containers=[]))[0]
    assert _losses(_run(), _facts(wrong, containers=[], exit_codes={CONTAINER: 255})) == []
    assert _losses(_run(), _facts(wrong, containers=[], exit_codes={CONTAINER: 3})) != []


def test_exit_codes_are_read_from_what_docker_ps_shows() -> None:
    watch = EngineWatch(())
    watch.note(
        f"{CONTAINER} Exited (255) 2 minutes ago\nabc Up 3 seconds\ndef Created\nfed Exited (0) Less than a second ago"
    )
    assert watch.exit_codes == {CONTAINER: 255, "fed": 0}


def test_an_attempt_that_was_not_heard_of_may_come_after_one_that_found_no_host() -> None:
    assert _losses(_run(made=[], reason="AGENT", unheard_at=90.0), _facts()) == []
    assert _losses(_run(made=[], reason="AGENT"), _facts()) != []


def test_a_host_may_be_draining_only_if_an_attempt_to_drain_it_was_not_heard_of() -> None:
    drained = _facts(hosts=[replace(HOST, status="DRAINING")])
    members = {"containerInstances": ["i1"], "status": "DRAINING"}
    drain = Request(operation="update_container_instances_state", token="d", sent=members, outcome=Outcome.ACCEPTED)
    assert judge([_run(), drain], drained).losses != []
    drain.unheard_at = 5.0
    assert judge([_run(), drain], drained).losses == []


KILLED: dict[str, Any] = {"task": replace(ENDED, exit_code=137), "marks": Marks({SHORT: ["job"]}, {})}


def test_a_container_that_ended_before_its_time_is_a_loss_unless_its_engine_took_it_along() -> None:
    mortal = [replace(HOST, live_restore=False)]
    assert _losses(_run(), _facts(**KILLED)) != []
    assert _losses(_run(), _facts(**KILLED, hosts=mortal)) != []
    assert _losses(_run(), _facts(**KILLED, hosts=mortal, happened=[_engine_fault()])) == []
    assert _losses(_run(), _facts(**KILLED, hosts=[HOST], happened=[_engine_fault()])) != []
    assert _losses(_run(), _facts(**KILLED, hosts=mortal, happened=[_engine_fault(Kind.FREEZE)])) != []


def test_a_fault_excuses_nothing_that_ended_before_it_or_began_long_after_it() -> None:
    mortal, marks = [replace(HOST, live_restore=False)], [_engine_fault()]
    assert _losses(_run(), _facts(**KILLED, hosts=mortal, happened=marks, stopped_at={ARN: 109.0})) != []
    assert _losses(_run(at=150.0), _facts(**KILLED, hosts=mortal, happened=marks)) != []


def test_a_task_that_failed_to_start_is_excused_by_any_fault_of_its_engine() -> None:
    failed = replace(ENDED, stop_code="TaskFailedToStart", exit_code=None, runtime_id="")
    found: dict[str, Any] = {"containers": [], "marks": Marks({}, {})}
    assert _losses(_run(), _facts(failed, **found)) != []
    assert _losses(_run(), _facts(failed, **found, happened=[_engine_fault(Kind.FREEZE)])) == []


def test_a_stop_that_was_accepted_holds_and_one_that_nobody_asked_for_is_a_loss() -> None:
    stop = Request(operation="stop_task", token="stop", sent={"task": ARN}, outcome=Outcome.ACCEPTED)
    stopped = replace(ENDED, stop_code="UserInitiated", exit_code=137)
    marks = Marks({SHORT: ["job"]}, {})
    assert judge([_run(None), stop], _facts(stopped, marks=marks)).losses == []
    assert judge([_run(None)], _facts(stopped, marks=marks)).losses != []
    assert judge([_run(None)], _facts(RUNS, marks=marks)).losses == []
    assert judge([_run(None), stop], _facts(RUNS, marks=marks)).losses != []


def _service(operation: str, outcome: Outcome = Outcome.ACCEPTED, **members: Any) -> Request:
    name = {"serviceName" if operation == "create_service" else "service": "s"}
    times: dict[str, Any] = {"at": 0.0, "ended_at": 1.0, "unheard_at": 0.0 if outcome is Outcome.ACCEPTED else 1.0}
    times = {key: members.pop(key, value) for key, value in times.items()}
    return Request(operation=operation, token="t", sent={**name, **members}, outcome=outcome, **times)


CREATED = _service("create_service", desiredCount=1, taskDefinition="worker:1")


def test_a_service_is_expected_as_the_last_accepted_request_left_it() -> None:
    assert expected_services([CREATED])["s"].count == {1}
    updated = [CREATED, _service("update_service", desiredCount=3)]
    assert expected_services(updated)["s"].count == {3}
    assert expected_services(updated)["s"].definition == {"worker:1"}
    assert expected_services([*updated, _service("delete_service")])["s"].exists == {False}


def test_a_request_that_nobody_answered_may_hold_or_not() -> None:
    unanswered = [CREATED, _service("update_service", Outcome.UNANSWERED, desiredCount=3)]
    assert expected_services(unanswered)["s"].count == {1, 3}
    assert expected_services([CREATED, _service("delete_service", Outcome.UNANSWERED)])["s"].exists == {True, False}


def test_an_attempt_that_nobody_answered_may_come_after_what_was_asked_for_soon_after_it() -> None:
    lost = _service("update_service", Outcome.ACCEPTED, desiredCount=3, unheard_at=10.0, ended_at=11.0)
    soon = _service("update_service", desiredCount=2, ended_at=12.0)
    late = _service("update_service", desiredCount=2, ended_at=80.0)
    assert expected_services([CREATED, lost, soon])["s"].count == {2, 3}
    assert expected_services([CREATED, lost, late])["s"].count == {2}


def _of_service(**members: Any) -> Facts:
    task = replace(RUNS, group="service:s", definition=DEFINITION, started_by="ecs-svc/1")
    return _facts(task, **{"services": {"s": SERVICE}, "marks": Marks({SHORT: ["service"]}, {}), **members})


def test_a_service_that_has_what_it_should_is_no_loss() -> None:
    assert judge([CREATED], _of_service()).losses == []


@pytest.mark.parametrize(
    ("change", "loss"),
    [
        ({"status": "INACTIVE"}, "is not there"),
        ({"desired": 2}, "is not what was asked for"),
        ({"running": 0, "pending": 1}, "has not settled"),
        ({"deployments": 2}, "has not settled"),
        ({"definition": DEFINITION.replace(":1", ":2")}, "is not what was asked for"),
    ],
)
def test_a_service_that_has_not_is(change: dict[str, Any], loss: str) -> None:
    losses = judge([CREATED], _of_service(services={"s": replace(SERVICE, **change)})).losses
    assert any(loss in each for each in losses), losses


def test_a_deleted_service_has_no_tasks() -> None:
    gone = {"s": replace(SERVICE, status="INACTIVE")}
    losses = judge([CREATED, _service("delete_service")], _of_service(services=gone)).losses
    assert any("is gone and has 1 tasks" in each for each in losses), losses


@pytest.mark.parametrize(
    ("kept", "said", "lost"),
    [
        (["said job"], [], False),
        ([], ["said job"], True),
        (["said job"] * 2, ["said job"], True),
        ([], [], False),  # the Engine lost it
        (["said other"], ["said job"], True),
    ],
)
def test_a_line_is_kept_once_if_its_engine_has_it(kept: list[str], said: list[str], lost: bool) -> None:
    verdict = judge_lines([_run()], _facts(kept={ARN: kept}, said={ARN: said}))
    assert bool(verdict.losses) is lost


def test_a_line_of_a_container_that_is_cleaned_up_must_be_kept_unless_its_engine_was_at_fault() -> None:
    assert judge_lines([_run()], _facts(containers=[])).losses != []
    assert judge_lines([_run()], _facts(containers=[], kept={ARN: ["said job"]})).losses == []
    verdict = judge_lines([_run()], _facts(containers=[], happened=[_engine_fault()]))
    assert verdict.losses == []
    assert verdict.excused.total() == 1


def test_what_may_run_once_runs_one_after_another() -> None:
    one_by_one = [Span("a", 1.0, 5.0), Span("b", 5.1, 9.0), Span("c", 30.0, 31.0)]
    assert _losses(_run(), _facts(only=one_by_one)) == []
    losses = _losses(_run(), _facts(only=[Span("a", 1.0, 5.1), Span("b", 4.6, 9.0)]))
    assert any("two ran at a time of what may run once, for 0.5 s" in each for each in losses), losses
    assert any("nothing ever ran" in each for each in _losses(_run(), _facts(only=[])))


@pytest.mark.parametrize(
    ("part", "kind", "node", "begun_at", "excused"),
    [
        (Part.AGENT, Kind.FREEZE, "host-1", 115.0, True),
        (Part.AGENT, Kind.FILL, "host-1", 115.0, True),
        (Part.ENGINE, Kind.KILL, "host-1", 115.0, True),
        (Part.AGENT, Kind.SHIFT, "host-1", 115.0, False),  # its silence isn't measured by the wall clock
        (Part.CABLE, Kind.CUT, "host-1", 115.0, False),  # that is what it must cope with
        (Part.AGENT, Kind.FREEZE, "host-2", 115.0, False),
        (Part.AGENT, Kind.FREEZE, "host-1", 130.5, False),  # after the other one had begun
        (Part.AGENT, Kind.FREEZE, "host-1", 50.0, False),  # long before
        (Part.CONTROL_PLANE, Kind.KILL, "controlplane", 115.0, False),
    ],
)
def test_two_at_a_time_are_excused_if_nobody_was_there_to_stop_the_older(
    part: Part, kind: Kind, node: str, begun_at: float, *, excused: bool
) -> None:
    happened = Happened(Fault(at_s=1, lasts_s=5, kind=kind, part=part, node=node), begun_at, begun_at + 5)
    both = [Span(SHORT, 100.0, 131.0), Span("younger", 130.0, 140.0)]
    verdict = judge([_run()], _facts(only=both, happened=[happened]))
    assert bool(verdict.losses) is not excused
    assert verdict.excused.total() == excused


def test_beats_tell_when_containers_ran_by_the_monotonic_clock() -> None:
    beats = "b 107.25\na 103.00\na 103.25\nb 107.00\n"
    assert read_beats(beats, ahead_s=100.0) == [Span("a", 3.0, 3.25), Span("b", 7.0, 7.25)]
