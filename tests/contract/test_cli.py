"""The `homeport` commands against a real API server, read as a stranger would read them."""

import configparser
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from homeport.datadir import ControlPlaneDir, EndpointFile
from homeport.protocol import ContainerReport
from homeport.status import ContainerStatus, TaskStatus
from tests.contract.commandline import Homeport
from tests.contract.definitions import register
from tests.contract.fleet import Fleet
from tests.contract.server import ACCESS_KEY_ID, ACCOUNT, REGION, SECRET, ApiServer
from tests.fakes.log_store import MemoryLogStore

NODE_COLUMNS = ["NODE", "HOST", "STATUS", "CONNECTED", "TASKS", "CPU", "MEMORY", "DOCKER", "HEALTH", "SINCE"]


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


def run_task(ecs: Any, **arguments: Any) -> tuple[str, str]:
    """Run a task and return its ARN and id."""
    (task,) = ecs.run_task(taskDefinition="web", **arguments)["tasks"]
    return task["taskArn"], task["taskArn"].rsplit("/", 1)[-1]


# ---------------------------------------------------------------- env, login


def test_env_prints_what_a_shell_needs(homeport: Homeport, server: ApiServer) -> None:
    lines = homeport("env").stdout.splitlines()
    assert lines == [
        f"export AWS_ENDPOINT_URL={server.url}",
        f"export AWS_ACCESS_KEY_ID={ACCESS_KEY_ID}",
        f"export AWS_SECRET_ACCESS_KEY={SECRET}",
        f"export AWS_DEFAULT_REGION={REGION}",
        f"export AWS_REGION={REGION}",
        "export AWS_DISABLE_HOST_PREFIX_INJECTION=true",
    ]
    assert json.loads(homeport("env", "--json").stdout)["AWS_ENDPOINT_URL"] == server.url


def test_login_writes_a_profile_that_homeport_itself_then_uses(
    homeport: Homeport, server: ApiServer, tmp_path: Path
) -> None:
    said = homeport("login").stdout
    assert f"It leads to {server.url} (account {ACCOUNT})." in said
    assert "AWS_PROFILE=homeport aws ecs list-clusters" in said
    config = configparser.ConfigParser()
    config.read([tmp_path / "aws" / "config", tmp_path / "aws" / "credentials"])
    settings = {"region": REGION, "endpoint_url": server.url, "disable_host_prefix_injection": "true"}
    assert dict(config["profile homeport"]) == settings
    assert dict(config["homeport"]) == {"aws_access_key_id": ACCESS_KEY_ID, "aws_secret_access_key": SECRET}
    status = json.loads(homeport("status", "--json", environment={"HOMEPORT_DATA_DIR": None}).stdout)
    assert (status["source"], status["endpointUrl"]) == ("AWS profile homeport", server.url)


def test_login_leaves_a_profile_of_aws_alone_unless_forced(homeport: Homeport, tmp_path: Path) -> None:
    path = tmp_path / "aws" / "config"
    path.parent.mkdir()
    path.write_text("[profile work]\nregion = eu-central-1\n")
    refused = homeport("login", "--profile", "work", code=1)
    assert "The AWS profile work exists already and leads to AWS" in refused.stderr
    assert path.read_text() == "[profile work]\nregion = eu-central-1\n"
    homeport("login", "--profile", "work", "--force")
    assert f"region = {REGION}" in path.read_text()


def test_login_to_a_remote_control_plane_takes_its_key(homeport: Homeport, server: ApiServer) -> None:
    remote = ("login", "--endpoint", server.url + "/", "--region", REGION)
    assert "needs --access-key-id" in homeport(*remote, code=2).stderr
    said = homeport(*remote, "--access-key-id", ACCESS_KEY_ID, "--secret-access-key", SECRET, "--json").stdout
    assert json.loads(said)["account"] == ACCOUNT


def test_login_with_a_wrong_key_says_so_and_writes_the_profile(homeport: Homeport, server: ApiServer) -> None:
    remote = ("login", "--endpoint", server.url, "--access-key-id", ACCESS_KEY_ID, "--secret", "wrong" * 5)
    assert "refuses the access key" in homeport(*remote).stdout
    refused = homeport("ps", code=4, environment={"HOMEPORT_DATA_DIR": None}).stderr
    assert "from AWS profile homeport" in refused
    assert "homeport login --data-dir DIR" in refused


# ---------------------------------------------------------------- can't be done


def test_a_control_plane_that_is_not_there_is_exit_code_4(homeport: Homeport, data_dir: Path) -> None:
    path = ControlPlaneDir(data_dir).endpoint
    endpoint = msgspec.json.decode(path.read_bytes(), type=EndpointFile)
    gone = msgspec.structs.replace(endpoint, local_url="http://127.0.0.1:9")
    path.write_bytes(msgspec.json.encode(gone))
    for command in (["ps"], ["status"], ["run", "web"], ["logs", "ab"], ["stop", "ab"]):
        refused = homeport(*command, code=4).stderr
        assert f"http://127.0.0.1:9 (from data directory {data_dir}) can't be reached" in refused


@pytest.mark.parametrize(
    "command", [["story", "abc"], ["logs", "abc"], ["stop", "abc"], ["nodes", "abc"], ["drain", "abc"]]
)
def test_what_is_not_there_is_exit_code_3_and_says_where_to_look(homeport: Homeport, command: list[str]) -> None:
    refused = homeport(*command, code=3).stderr
    assert refused.startswith(f"homeport: There is no {'node' if command[0] in ('nodes', 'drain') else 'task'} abc.\n")
    assert "list" in refused


def test_an_id_that_can_not_be_one_is_explained(homeport: Homeport) -> None:
    assert "'web!' can't name a task: expected an id of 32 hex digits" in homeport("story", "web!", code=1).stderr


def test_an_unknown_cluster_is_exit_code_3(homeport: Homeport) -> None:
    assert homeport("ps", "--cluster", "nope", code=3).stderr == "homeport: Cluster not found.\n"


# ---------------------------------------------------------------- nodes


def test_without_hosts_the_next_step_is_named(homeport: Homeport) -> None:
    result = homeport("nodes")
    assert result.stdout == ""
    assert "homeport add-node" in result.stderr
    assert json.loads(homeport("nodes", "--json").stdout) == []


def test_nodes_show_what_hosts_have_and_how_they_are(homeport: Homeport, ecs: Any, fleet: Fleet) -> None:
    good, bad = fleet.add_host("anna", cpu=2048, memory=4096), fleet.add_host("bert", connected=False)
    register(ecs)
    arn, _ = run_task(ecs)
    fleet.running(arn)
    header, first, second = homeport("nodes").stdout.splitlines()
    assert header.split() == [
        "NODE",
        "HOST",
        "STATUS",
        "CONNECTED",
        "TASKS",
        "CPU",
        "MEMORY",
        "DOCKER",
        "HEALTH",
        "SINCE",
    ]
    assert first.split()[:8] == [good[:12], "anna", "ACTIVE", "yes", "1", "0/2", "64", "MiB/4"]
    assert second.split()[:4] == [bad[:12], "bert", "ACTIVE", "no"]
    assert "UNKNOWN" in second
    fleet.set_presence(good, DISK="95 % full")
    assert "DISK: 95 % full" in homeport("nodes").stdout


def test_a_node_is_named_by_the_beginning_of_its_id_or_its_host_name(homeport: Homeport, fleet: Fleet) -> None:
    node = fleet.add_host("anna")
    fleet.add_host("bert")
    for name in (node, node[:6], "anna"):
        assert f"node:        {node}" in homeport("nodes", name).stdout
    assert json.loads(homeport("nodes", "anna", "--json").stdout)["id"] == node


def test_a_name_that_means_two_nodes_is_refused(homeport: Homeport, fleet: Fleet) -> None:
    fleet.add_host("twin")
    fleet.add_host("twin")
    refused = homeport("nodes", "twin", code=1).stderr
    assert "twin could mean several nodes" in refused


def test_a_drained_host_gets_no_tasks_until_it_is_taken_back(homeport: Homeport, ecs: Any, fleet: Fleet) -> None:
    node = fleet.add_host("anna")
    register(ecs)
    arn, task_id = run_task(ecs)
    fleet.running(arn)
    assert "takes no more tasks" in homeport("drain", "anna").stdout
    assert task_id[:12] in homeport("ps", "--node", node[:12]).stdout
    assert "DRAINING" in homeport("nodes").stdout
    assert "No task was started" in homeport("run", "web", code=1).stderr
    assert "takes tasks again" in homeport("drain", "anna", "--undo").stdout
    homeport("run", "web")


# ---------------------------------------------------------------- add-node


def test_add_node_on_loopback_says_what_to_do(homeport: Homeport, server: ApiServer) -> None:
    with server.unchanged():
        refused = homeport("add-node", code=1).stderr
    assert "listens on this machine only" in refused
    assert "--listen 0.0.0.0:6181" in refused


def test_add_node_prints_nothing_but_the_command_on_standard_output(homeport: Homeport, server: ApiServer) -> None:
    result = homeport("add-node", "--local", "--count", "3", "--expires", "1h")
    (command,) = result.stdout.splitlines()
    assert command.startswith("homeport-agent join --server http://127.0.0.1:6180 --activation-id ")
    (activation,) = server.context.state.activations
    assert activation.registration_limit == 3
    assert activation.expires_at == pytest.approx(server.clock.now() + 3600, abs=30)
    assert "up to 3 hosts" in result.stderr


def test_add_node_checks_its_limits(homeport: Homeport) -> None:
    assert "1<=x<=1000" in homeport("add-node", "--local", "--count", "0", code=2).stderr
    assert (
        "expiresInS must be between 60 and 2592000" in homeport("add-node", "--local", "--expires", "1s", code=1).stderr
    )
    assert homeport("add-node", "--local", "--cluster", "nope", code=3).stderr == "homeport: Cluster not found.\n"


# ---------------------------------------------------------------- tasks


def test_ps_without_tasks_says_how_to_start_one(homeport: Homeport) -> None:
    result = homeport("ps")
    assert result.stdout == ""
    assert "homeport run IMAGE" in result.stderr
    assert json.loads(homeport("ps", "--json").stdout) == []


def test_ps_shows_tasks_and_with_all_also_stopped_ones_and_why(homeport: Homeport, ecs: Any, fleet: Fleet) -> None:
    fleet.add_host("anna")
    container = {"name": "web", "image": "busybox", "memory": 64, "portMappings": [{"containerPort": 80}]}
    register(ecs, containerDefinitions=[container])
    running, running_id = run_task(ecs)
    fleet.running(running)
    stopped, stopped_id = run_task(ecs)
    fleet.running(stopped)
    fleet.stopped(stopped, exit_code=7)
    header, line = homeport("ps").stdout.splitlines()
    assert header.split() == ["TASK", "DEFINITION", "STATUS", "NODE", "AGE", "PORTS"]
    assert line.split() == [running_id[:12], "web:1", "RUNNING", "anna", line.split()[4], "32768->80/tcp"]
    everything = homeport("ps", "-a").stdout
    assert running_id[:12] in everything
    (ended,) = (line for line in everything.splitlines() if stopped_id[:12] in line)
    assert "STOPPED (exit 7)" in ended
    assert ended.endswith("Essential container in task exited")
    assert [task["id"] for task in json.loads(homeport("ps", "--json").stdout)] == [running_id]


def test_a_task_restarted_in_place_says_how_often(homeport: Homeport, ecs: Any, fleet: Fleet) -> None:
    fleet.add_host()
    register(ecs)
    arn, _ = run_task(ecs)
    report = ContainerReport(name="web", status=ContainerStatus.RUNNING, restart_count=2)
    fleet.report(arn, TaskStatus.RUNNING, [report], started_at=1.0)
    assert "RUNNING (2 restarts)" in homeport("ps").stdout


def test_many_tasks_come_in_pages(homeport: Homeport, ecs: Any, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.add_host(memory=65536)
    register(ecs)
    for _ in range(3):
        ecs.run_task(taskDefinition="web", count=10)
    monkeypatch.setattr("controlplane.api.homeport_service.MAX_PAGE", 7)
    assert len(json.loads(homeport("ps", "--json").stdout)) == 30


def test_run_starts_a_task_definition_with_overrides(homeport: Homeport, ecs: Any, fleet: Fleet) -> None:
    fleet.add_host("anna")
    register(ecs)
    result = homeport("run", "web", "--count", "2", "-e", "A=1", "--memory", "32", "--json", "--", "sh", "-c", "true")
    started = json.loads(result.stdout)
    assert [task["taskDefinition"] for task in started] == ["web:1", "web:1"]
    (described,) = ecs.describe_tasks(tasks=[started[0]["id"]])["tasks"]
    assert described["overrides"]["containerOverrides"] == [
        {"name": "web", "command": ["sh", "-c", "true"], "environment": [{"name": "A", "value": "1"}], "memory": 32}
    ]
    assert described["startedBy"] == "homeport-run"


def test_run_limits_retries_and_keeps_tasks_from_running_together(homeport: Homeport, ecs: Any, fleet: Fleet) -> None:
    fleet.add_host("anna")
    register(ecs)
    limits = ("--stop-after", "10m", "--retries", "2", "--exclusive", "nightly")
    assert " on anna: PENDING" in homeport("run", "web", *limits).stdout
    assert ": PROVISIONING" in homeport("run", "web", *limits).stdout
    order = next(iter(fleet.context.state.tasks)).order
    assert (order.timeout_s, order.retries, order.exclusive) == (600, 2, "nightly")
    refused = homeport("run", "web", *limits, "--if-taken", "skip", code=1)
    assert "not placed: EXCLUSIVE" in refused.stderr
    assert "needs --exclusive" in homeport("run", "web", "--if-taken", "skip", code=2).stderr


def test_run_registers_an_image_once(homeport: Homeport, ecs: Any, fleet: Fleet) -> None:
    fleet.add_host()
    said = homeport("run", "team/web:1.0", "-p", "80").stdout
    assert " run-web:1 on host-1: PENDING" in said
    assert " run-web:1 " in homeport("run", "team/web:1.0", "-p", "80").stdout
    assert " run-web:2 " in homeport("run", "team/web:1.0", "--", "other").stdout
    families = ecs.list_task_definition_families()["families"]
    assert families == ["run-web"]


def test_run_without_room_says_why(homeport: Homeport, ecs: Any, fleet: Fleet) -> None:
    fleet.add_host(memory=32)
    register(ecs)
    refused = homeport("run", "web", code=1).stderr
    assert "not placed: RESOURCE:MEMORY" in refused
    assert "homeport nodes" in refused


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["web", "-e", "novalue"], "'novalue' is not NAME=VALUE"),
        (["web", "-f", "--count", "2"], "--follow shows one log"),
        (["web", "-p", "80"], "--publish is for images"),
        (["web", "--count", "11"], "1<=x<=10"),
    ],
)
def test_run_explains_wrong_usage(homeport: Homeport, ecs: Any, arguments: list[str], text: str) -> None:
    register(ecs)
    assert text in homeport("run", *arguments, code=2).stderr


def test_stop_takes_several_and_stops_none_if_one_is_unknown(homeport: Homeport, ecs: Any, fleet: Fleet) -> None:
    fleet.add_host()
    register(ecs)
    (one, one_id), (two, two_id) = run_task(ecs), run_task(ecs)
    fleet.running(one)
    fleet.running(two)
    homeport("stop", one_id, "ffff", code=3)
    assert fleet.record(one).desired.name == "RUNNING"
    said = homeport("stop", one_id[:16], two, "--reason", "enough").stdout
    assert said == f"{one_id[:12]} web:1: RUNNING (stopping)\n{two_id[:12]} web:1: RUNNING (stopping)\n"
    (described,) = ecs.describe_tasks(tasks=[one])["tasks"]
    assert described["stoppedReason"] == "enough"


def test_stop_waits_until_it_has_stopped(homeport: Homeport, ecs: Any, fleet: Fleet, server: ApiServer) -> None:
    fleet.add_host()
    register(ecs)
    arn, task_id = run_task(ecs)
    fleet.running(arn)
    fleet.stopped(arn, exit_code=143)
    assert homeport("stop", task_id, "--wait").stdout == f"{task_id[:12]} web:1: STOPPED (exit 143)\n"


def test_waiting_ends_with_a_sentence_after_the_timeout(homeport: Homeport, ecs: Any, fleet: Fleet) -> None:
    fleet.add_host()
    register(ecs)
    refused = homeport("run", "web", "--wait", "--timeout", "0.1s", code=1).stderr
    assert "is still PENDING after 0.1 s" in refused
    assert "homeport story" in refused


# ---------------------------------------------------------------- story, status


def test_story_tells_what_happened(homeport: Homeport, ecs: Any, fleet: Fleet) -> None:
    fleet.add_host("anna")
    register(ecs)
    arn, task_id = run_task(ecs)
    fleet.running(arn)
    fleet.stopped(arn, exit_code=1)
    head, state, reason, empty, header, *lines = homeport("story", task_id[:8]).stdout.splitlines()
    assert head == f"task {task_id}  web:1  in default on anna"
    assert state.startswith("STOPPED (exit 1) for ")
    assert reason == "EssentialContainerExited: Essential container in task exited"
    assert empty == ""
    assert header.split() == ["TIME", "WHO", "WHAT"]
    assert lines
    document = json.loads(homeport("story", arn, "--json").stdout)
    assert document["task"]["id"] == task_id
    assert [set(line) for line in document["lines"]] == [
        {"at", "event", "message", "actor", "container", "host"} for _ in document["lines"]
    ]


def test_a_story_outlives_its_task(homeport: Homeport, ecs: Any, fleet: Fleet, server: ApiServer) -> None:
    fleet.add_host("anna")
    register(ecs)
    arn, task_id = run_task(ecs)
    fleet.running(arn)
    fleet.stopped(arn)

    def archive() -> None:
        with server.context.state.transaction() as transaction:
            transaction.archive(fleet.context.state.tasks.get(task_id))

    server.call(archive)
    assert ecs.describe_tasks(tasks=[arn])["tasks"] == []
    document = json.loads(homeport("story", task_id[:10], "--json").stdout)
    assert document["task"]["archived"] is True
    assert document["lines"]
    gone = homeport("logs", task_id, code=3).stderr
    assert "The log can't be read: " in gone
    assert f"What is known: homeport story {task_id}" in gone


def test_a_beginning_that_means_several_tasks_is_refused_with_their_ids(
    homeport: Homeport, ecs: Any, fleet: Fleet
) -> None:
    fleet.add_host(memory=65536)
    register(ecs)
    ids = [run_task(ecs)[1] for _ in range(17)]
    first = next(one for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    refused = homeport("story", first[0], code=1).stderr
    assert f"{first[0]} could mean several tasks: " in refused
    assert first in refused


def test_status_counts(homeport: Homeport, ecs: Any, fleet: Fleet) -> None:
    assert "none; `homeport add-node` prints the command" in homeport("status").stdout
    node = fleet.add_host("anna")
    fleet.add_host("bert", connected=False)
    register(ecs)
    fleet.running(run_task(ecs)[0])
    run_task(ecs)
    fleet.set_presence(node, DISK="full")
    document = json.loads(homeport("status", "--json").stdout)
    assert document["nodes"] == {"registered": 2, "connected": 1, "draining": 0, "impaired": 1}
    assert document["tasks"] == {"pending": 1, "running": 1, "stopped": 0}
    assert "2 registered, 1 connected" in homeport("status").stdout


def test_status_tells_how_full_the_log_store_is_and_why_it_takes_nothing(homeport: Homeport, server: ApiServer) -> None:
    assert re.search(r"logs: +0\.0 MiB\n", homeport("status").stdout)
    store = server.context.logs
    assert isinstance(store, MemoryLogStore)
    store.problem = "the disk is full"
    assert re.search(r"logs: +0\.0 MiB; NOT TAKEN NOW: the disk is full\n", homeport("status").stdout)
    assert json.loads(homeport("status", "--json").stdout)["logs"] == {
        "usedBytes": 0, "limitBytes": None, "problem": "the disk is full"
    }  # fmt: skip


def test_version_needs_no_control_plane(homeport: Homeport) -> None:
    assert json.loads(homeport("version", "--json").stdout) == {"version": "0.1.0"}
    assert homeport("--version").stdout == "homeport 0.1.0\n"
