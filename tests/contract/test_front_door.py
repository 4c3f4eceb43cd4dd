"""The front door itself: signatures, dispatch, and every kind of request that must be refused without a trace."""

import gzip
import hashlib
import socket
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from controlplane.api.body import MAX_BODY_BYTES, largest_body
from controlplane.api.registry import HANDLERS
from tests.contract.refusals import refused
from tests.contract.server import REGION, Answer, ApiServer, sign

ECS = "AmazonEC2ContainerServiceV20141113."


def code_of(answer: Answer) -> str:
    assert answer.headers["content-type"] == "application/x-amz-json-1.1"
    assert answer.headers["x-amzn-requestid"]
    assert answer.json["message"]
    code: str = answer.json["__type"]
    return code


# ---------------------------------------------------------------- signatures


def test_any_region_is_taken(server: ApiServer) -> None:
    for region in ("us-east-1", "mars-north-7"):
        assert server.client("ecs", region_name=region).list_clusters()["clusterArns"]
    arn = server.client("ecs", region_name="us-east-1").list_clusters()["clusterArns"][0]
    assert arn.split(":")[3] == REGION


def test_a_session_token_is_ignored(server: ApiServer) -> None:
    signed = {"X-Amz-Security-Token": "whatever"}
    assert server.post(f"{ECS}ListClusters", b"{}", headers=signed).status == 200


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"aws_secret_access_key": "wrong"}, "InvalidSignatureException"),
        ({"aws_access_key_id": "AKIANOSUCHKEY"}, "UnrecognizedClientException"),
    ],
)
def test_wrong_keys_are_refused(server: ApiServer, options: dict[str, str], code: str) -> None:
    with server.unchanged(), pytest.raises(ClientError, match="homeport login") as caught:
        server.client("ecs", **options).create_cluster(clusterName="x")
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_sts_refuses_in_its_own_form(server: ApiServer) -> None:
    with pytest.raises(ClientError) as caught:
        server.client("sts", aws_secret_access_key="wrong").get_caller_identity()
    assert caught.value.response["Error"]["Code"] == "SignatureDoesNotMatch"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize("off", [-301, 301, -86400])
def test_a_clock_more_than_five_minutes_off_is_refused(server: ApiServer, off: int) -> None:
    with server.unchanged():
        answer = server.post(f"{ECS}CreateCluster", b"{}", at=server.clock.now() + off)
    assert code_of(answer) == "InvalidSignatureException"
    assert "Set the clock" in answer.json["message"]


@pytest.mark.parametrize("off", [-290, 290])
def test_a_clock_less_than_five_minutes_off_is_taken(server: ApiServer, off: int) -> None:
    assert server.post(f"{ECS}ListClusters", b"{}", at=server.clock.now() + off).status == 200


def test_an_unsigned_request_is_refused(server: ApiServer) -> None:
    answer = server.send("POST", "/", {"X-Amz-Target": f"{ECS}ListClusters"}, b"{}")
    assert (answer.status, code_of(answer)) == (400, "MissingAuthenticationTokenException")


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("Authorization", "Basic abc", "IncompleteSignatureException"),
        ("Authorization", "AWS4-HMAC-SHA256 Signature=abc", "IncompleteSignatureException"),
        (
            "Authorization",
            "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=a",
            "IncompleteSignatureException",
        ),
        ("X-Amz-Date", "yesterday", "IncompleteSignatureException"),
        ("X-Amz-Date", "", "IncompleteSignatureException"),
        ("X-Amz-Target", f"{ECS}DeleteCluster", "InvalidSignatureException"),
        ("X-Amz-Content-Sha256", "0" * 64, "InvalidSignatureException"),
        ("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD", "InvalidSignatureException"),
        ("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "InvalidSignatureException"),
        ("Host", "elsewhere.example", "InvalidSignatureException"),
    ],
)
def test_a_tampered_header_is_refused(server: ApiServer, name: str, value: str, code: str) -> None:
    body = b'{"clusterName": "tampered", "cluster": "default"}'
    signed = {**sign(server.url, f"{ECS}CreateCluster", body), name: value}
    with server.unchanged():
        answer = server.send("POST", "/", signed, body)
    assert (answer.status, code_of(answer)) == (400, code)


def test_a_tampered_body_is_refused(server: ApiServer) -> None:
    signed = sign(server.url, f"{ECS}CreateCluster", b'{"clusterName": "a"}')
    with server.unchanged():
        answer = server.send("POST", "/", signed, b'{"clusterName": "b"}')
    assert (answer.status, code_of(answer)) == (400, "InvalidSignatureException")


def test_a_declared_body_hash_that_fits_is_taken(server: ApiServer) -> None:
    declared = {"X-Amz-Content-Sha256": hashlib.sha256(b"{}").hexdigest()}
    assert server.post(f"{ECS}ListClusters", b"{}", headers=declared).status == 200


def test_what_decides_the_meaning_must_be_signed(server: ApiServer) -> None:
    signed = sign(server.url, None, b"{}") | {"X-Amz-Target": f"{ECS}ListClusters"}
    answer = server.send("POST", "/", signed, b"{}")
    assert code_of(answer) == "InvalidSignatureException"
    assert "'x-amz-target' must be a 'SignedHeader'" in answer.json["message"]


def test_a_signature_for_another_service_is_refused(server: ApiServer) -> None:
    answer = server.post(f"{ECS}ListClusters", b"{}", service="ssm")
    assert code_of(answer) == "InvalidSignatureException"
    assert "'ecs'" in answer.json["message"]


# ---------------------------------------------------------------- dispatch


def test_an_operation_that_is_not_served_is_named(ecs: Any, server: ApiServer) -> None:
    with (
        server.unchanged(),
        pytest.raises(ClientError, match="the operation SubmitTaskStateChange isn't implemented") as caught,
    ):
        ecs.submit_task_state_change()
    assert caught.value.response["Error"]["Code"] == "UnsupportedFeatureException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_so_are_those_of_the_other_services(server: ApiServer) -> None:
    code, message = refused(server.client("ssm").get_parameter, Name="x")
    assert (code, "GetParameter" in message) == ("UnsupportedFeatureException", True)
    code, message = refused(server.client("logs").associate_kms_key, logGroupName="g", kmsKeyId="k")
    assert (code, "AssociateKmsKey" in message) == ("UnsupportedFeatureException", True)
    code, message = refused(server.client("sts").get_session_token)
    assert (code, "GetSessionToken" in message) == ("UnsupportedFeatureException", True)


@pytest.mark.parametrize(
    "target", [f"{ECS}Nonsense", f"{ECS}", "AmazonEC2ContainerServiceV20141113", "Nonsense.ListClusters"]
)
def test_an_unknown_target_is_refused(server: ApiServer, target: str) -> None:
    service = "nonsense" if target.startswith("Nonsense") else "ecs"
    with server.unchanged():
        answer = server.post(target, b"{}", service=service)
    assert (answer.status, code_of(answer)) == (400, "UnknownOperationException")


def test_an_unknown_query_service_is_refused_in_xml(server: ApiServer) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = server.post(None, b"Action=ListUsers", service="iam", headers=form)
    assert answer.status == 400
    assert answer.headers["content-type"] == "text/xml"
    assert b"<Code>UnknownOperationException</Code>" in answer.body
    assert b"Unknown service 'iam' (asked for ListUsers)" in answer.body


def test_an_unknown_json_service_is_named_with_its_operation(server: ApiServer) -> None:
    code, message = refused(server.client("ecr").get_authorization_token)
    assert (code, "'ecr' (asked for GetAuthorizationToken)" in message) == ("UnknownOperationException", True)


@pytest.mark.parametrize(
    "body", [b"", b"Action=", b"Action=Nonsense", b"\xff=\xfe", b"&&&=&", b"Action=GetCallerIdentity&&="]
)
def test_sts_refuses_what_is_no_action(server: ApiServer, body: bytes) -> None:
    answer = server.post(None, body, service="sts", headers={"Content-Type": "application/x-www-form-urlencoded"})
    served = body.startswith(b"Action=GetCallerIdentity")
    assert answer.status == (200 if served else 400)
    assert answer.headers["content-type"] == "text/xml"


def test_tools_that_ask_other_services_in_passing_get_an_honest_answer(server: ApiServer) -> None:
    assert server.client("secretsmanager").list_secrets()["SecretList"] == []
    sqs = server.client("sqs")
    with pytest.raises(sqs.exceptions.QueueDoesNotExist) as caught:
        sqs.get_queue_url(QueueName="q")
    assert caught.value.response["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"


def test_each_request_is_observed_under_finitely_many_names(server: ApiServer, ecs: Any) -> None:
    ecs.list_clusters()
    server.post(f"{ECS}Nonsense{'x' * 50}", b"{}")
    server.send("POST", "/", {}, b"")
    seen = [entry[:3] for entry in server.observed]
    assert seen == [
        ("ecs", "ListClusters", "200"),
        ("ecs", "unknown", "UnknownOperationException"),
        ("unknown", "unknown", "MissingAuthenticationTokenException"),
    ]
    assert all(entry[3] >= 0 for entry in server.observed)


def test_a_bug_is_answered_without_internals(server: ApiServer, ecs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> dict[str, Any]:
        raise RuntimeError("secret detail")

    monkeypatch.setitem(HANDLERS, ("ecs", "ListClusters"), broken)
    with pytest.raises(ClientError) as caught:
        ecs.list_clusters()
    response = caught.value.response
    assert response["Error"]["Code"] == "ServerException"
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert "secret detail" not in str(response)
    assert response["ResponseMetadata"]["RequestId"] in response["Error"]["Message"]
    server.observed.clear()


# ---------------------------------------------------------------- durability


@pytest.mark.parametrize(
    ("operation", "body", "status"),
    [
        ("CreateCluster", b'{"clusterName": "b"}', 200),
        ("DescribeClusters", b'{"clusters": ["gone"]}', 200),
        ("DeleteCluster", b'{"cluster": "gone"}', 400),
    ],
)
def test_nothing_is_answered_before_it_is_durable(
    server: ApiServer, ecs: Any, operation: str, body: bytes, status: int
) -> None:
    """A write, a read of what isn't durable yet, and a refusal because of it: all wait."""
    ecs.create_cluster(clusterName="gone")
    signed = sign(server.url, f"{ECS}{operation}", body)
    server.call(server.journal.hold)
    server.call(lambda: HANDLERS["ecs", "DeleteCluster"](server.context, {"cluster": "gone"}))
    pending = server.background(lambda: server.send("POST", "/", signed, body))
    server.wait_until(lambda: server.journal.waiting == 1)
    assert not pending.done()
    server.call(server.journal.release)
    assert pending.result(10).status == status


def test_what_can_not_be_kept_any_more_is_told_to_come_again(server: ApiServer) -> None:
    """The journal's disk is full, say, and the process about to end: no bug, and clients repeat it by themselves."""
    signed = sign(server.url, f"{ECS}CreateCluster", body := b'{"clusterName": "a"}')
    server.call(server.journal.hold)
    waits = server.background(lambda: server.send("POST", "/", signed, body))
    server.wait_until(lambda: server.journal.waiting == 1)
    server.call(lambda: server.journal.fail("can't write /var/state.db"))
    for answer in (waits.result(10), server.post(f"{ECS}CreateCluster", b'{"clusterName": "b"}')):
        assert (answer.status, code_of(answer)) == (503, "ServiceUnavailableException")
        assert "/var" not in answer.json["message"]


def test_a_refused_signature_waits_for_nothing(server: ApiServer) -> None:
    server.call(server.journal.hold)
    server.call(lambda: HANDLERS["ecs", "CreateCluster"](server.context, {"clusterName": "a"}))
    assert server.post(f"{ECS}ListClusters", b"{}", secret="wrong").status == 400
    server.call(server.journal.release)


# ---------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    "body",
    [b"{", b"nonsense", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, b'{"clusterName": "\\ud800"}', b'{"x": 1}{'],
)
def test_malformed_json_is_refused(server: ApiServer, body: bytes) -> None:
    with server.unchanged():
        answer = server.post(f"{ECS}CreateCluster", body)
    assert (answer.status, code_of(answer)) == (400, "SerializationException")


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b'"text"',
        b"1",
        b'{"clusterName": 1}',
        b'{"clusterName": {}}',
        b'{"tags": "x"}',
        b'{"tags": {"key": "x"}}',
        b'{"tags": ["x"]}',
        b'{"tags": [{"key": true}]}',
        b'{"defaultCapacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": "1"}]}',
        b'{"defaultCapacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": 1.5}]}',
        b'{"defaultCapacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": 99999999999}]}',
        b'{"defaultCapacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": 1e400}]}',
    ],
)
def test_wrong_json_types_are_refused(server: ApiServer, body: bytes) -> None:
    with server.unchanged():
        answer = server.post(f"{ECS}CreateCluster", body)
    assert (answer.status, code_of(answer)) == (400, "SerializationException")


def test_a_wrong_type_is_named_with_its_place(server: ApiServer) -> None:
    answer = server.post(f"{ECS}CreateCluster", b'{"tags": [{"key": "a", "value": 7}]}')
    assert answer.json["message"] == "NUMBER_VALUE at 'tags.1.member.value' can not be converted to a String"


def test_a_missing_member_is_named(server: ApiServer) -> None:
    answer = server.post(f"{ECS}DeleteCluster", b'{"cluster": null}')
    assert code_of(answer) == "InvalidParameterException"
    assert answer.json["message"] == (
        "1 validation error detected: Value null at 'cluster' failed to satisfy constraint: Member must not be null"
    )


def test_constraints_of_the_model_are_named_with_their_limits(server: ApiServer) -> None:
    body = msgspec.json.encode(
        {
            "tags": [{"key": "k" * 129, "value": "v"}, {"key": "new\nline", "value": "v"}],
            "settings": [{"name": "nonsense", "value": "enabled"}],
            "defaultCapacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": 1001}],
        }
    )
    with server.unchanged():
        answer = server.post(f"{ECS}CreateCluster", body)
    assert code_of(answer) == "InvalidParameterException"
    message = answer.json["message"]
    assert message.startswith("4 validation errors detected: ")
    assert (
        "at 'tags.1.member.key' failed to satisfy constraint: Member must have length less than or equal to 128"
        in message
    )
    assert "'tags.2.member.key' failed to satisfy constraint: Member must satisfy regular expression pattern" in message
    assert (
        "Value 'nonsense' at 'settings.1.member.name' failed to satisfy constraint: Member must satisfy enum" in message
    )
    assert "weight' failed to satisfy constraint: Member must have value less than or equal to 1000" in message


def test_unknown_and_null_members_are_dropped(server: ApiServer) -> None:
    body = b'{"clusterName": "odd", "nonsense": {"a": [1]}, "tags": null, "settings": []}'
    answer = server.post(f"{ECS}CreateCluster", body)
    assert answer.status == 200
    assert answer.json["cluster"]["clusterName"] == "odd"


def test_tags_may_hold_letters_and_spaces_of_any_script(ecs: Any) -> None:
    tags = [{"key": "größe 大\u00a0٣", "value": "₂ ½ +-=._:/@"}]
    assert ecs.create_cluster(clusterName="t", tags=tags)["cluster"]["tags"] == tags


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_1_mib_is_refused(server: ApiServer, chunked: bool) -> None:
    body = b'{"clusterName": "' + b"x" * MAX_BODY_BYTES + b'"}'
    signed = sign(server.url, f"{ECS}CreateCluster", body)
    with server.unchanged():
        if chunked:
            signed.pop("Content-Length", None)
            answer = server.send("POST", "/", signed | {"Transfer-Encoding": "chunked"}, _chunk(body))
        else:
            answer = server.send("POST", "/", signed, body)
    assert (answer.status, code_of(answer)) == (413, "RequestEntityTooLargeException")


@pytest.mark.parametrize(
    ("left_out", "refusal"),
    [("", "UnrecognizedClientException"), ("Authorization", "MissingAuthenticationTokenException")],
)
def test_bodies_over_1_mib_are_read_of_known_keys_only(server: ApiServer, left_out: str, refusal: str) -> None:
    signed = sign(server.url, "Logs_20140328.PutLogEvents", b"", service="logs", key="AKIAOFASTRANGER1")
    signed.pop(left_out, None)
    host, port = server.url.removeprefix("http://").split(":")
    head = {**signed, "Host": host, "Content-Length": str(largest_body("logs"))}
    with server.unchanged(), socket.create_connection((host, int(port)), timeout=10) as connection:
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        connection.sendall(f"POST / HTTP/1.1\r\n{lines}\r\n".encode())
        # Nothing of the body has been sent.
        assert refusal in connection.recv(4096).decode()


def _chunk(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("how", "body"),
    [
        ({"Content-Encoding": "gzip"}, b"nonsense"),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"{}", mtime=0)[:-1]),
        ({"Content-Encoding": "aws-chunked"}, b"2\r\n{}\r\n0\r\n\r\n"),
    ],
)
def test_a_body_in_another_form_is_refused(server: ApiServer, how: dict[str, str], body: bytes) -> None:
    with server.unchanged():
        answer = server.post(f"{ECS}CreateCluster", body, headers=how)
    assert (answer.status, code_of(answer)) == (400, "SerializationException")


def test_a_body_may_be_packed(server: ApiServer) -> None:
    body = gzip.compress(b'{"clusterName": "packed"}')
    answer = server.post(f"{ECS}CreateCluster", body, headers={"Content-Encoding": "gzip"})
    assert answer.json["cluster"]["clusterName"] == "packed"


def test_a_packed_body_is_unpacked_no_further_than_1_mib(server: ApiServer) -> None:
    body = gzip.compress(b"{}".ljust(MAX_BODY_BYTES + 1))
    with server.unchanged():
        answer = server.post(f"{ECS}CreateCluster", body, headers={"Content-Encoding": "gzip"})
    assert (answer.status, code_of(answer)) == (413, "RequestEntityTooLargeException")


def test_a_client_that_goes_away_leaves_nothing(server: ApiServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with server.unchanged():
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        server.wait_until(lambda: bool(server.observed))
    assert server.observed[0][2] == "SerializationException"


def test_a_body_of_1_mib_is_read(server: ApiServer) -> None:
    body = b'{"clusterName": "big"}'.ljust(MAX_BODY_BYTES)
    assert server.post(f"{ECS}CreateCluster", body).status == 200
