"""SSM activations and STS, through boto3."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.contract.server import ACCOUNT, ApiServer


@pytest.fixture
def ssm(server: ApiServer) -> Any:
    return server.client("ssm")


def test_the_caller_is_the_account(server: ApiServer) -> None:
    answer = server.client("sts").get_caller_identity()
    assert answer["Account"] == ACCOUNT
    assert answer["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    assert answer["UserId"] == ACCOUNT


def test_an_activation_is_made_listed_and_deleted(ssm: Any) -> None:
    made = ssm.create_activation(IamRole="role", Description="rack 1", RegistrationLimit=5)
    [listed] = ssm.describe_activations()["ActivationList"]
    assert listed["ActivationId"] == made["ActivationId"]
    assert listed["Description"] == "rack 1"
    assert listed["RegistrationLimit"] == 5
    assert listed["RegistrationsCount"] == 0
    assert not listed["Expired"]
    assert (listed["ExpirationDate"] - listed["CreatedDate"]).total_seconds() == pytest.approx(24 * 3600, abs=1)
    ssm.delete_activation(ActivationId=made["ActivationId"])
    assert ssm.describe_activations()["ActivationList"] == []


def test_the_code_is_long_and_only_its_hash_is_kept(ssm: Any, server: ApiServer) -> None:
    made = ssm.create_activation(IamRole="role")
    assert len(made["ActivationCode"]) >= 20
    assert made["ActivationCode"] not in str(server.context.state.activations.get(made["ActivationId"]))


def test_an_activation_expires(ssm: Any, server: ApiServer) -> None:
    ssm.create_activation(IamRole="role", ExpirationDate=server.clock.now() + 600)
    server.clock.move(601)
    [listed] = ssm.describe_activations()["ActivationList"]
    assert listed["Expired"]


@pytest.mark.parametrize("seconds", [-1, 30 * 24 * 3600 + 60])
def test_an_expiry_in_the_past_or_beyond_30_days_is_refused(ssm: Any, server: ApiServer, seconds: float) -> None:
    with server.unchanged(), pytest.raises(ClientError, match="ExpirationDate must be in the future") as caught:
        ssm.create_activation(IamRole="role", ExpirationDate=server.clock.now() + seconds)
    assert caught.value.response["Error"]["Code"] == "ValidationException"


def test_a_tag_chooses_the_cluster(ssm: Any, server: ApiServer) -> None:
    made = ssm.create_activation(IamRole="role", Tags=[{"Key": "homeport:cluster", "Value": "default"}])
    record = server.context.state.activations.get(made["ActivationId"])
    assert record is not None
    assert record.cluster == "default"
    with server.unchanged(), pytest.raises(ClientError, match="names the cluster 'nope'"):
        ssm.create_activation(IamRole="role", Tags=[{"Key": "homeport:cluster", "Value": "nope"}])


def test_activations_are_filtered(ssm: Any) -> None:
    first = ssm.create_activation(IamRole="a", DefaultInstanceName="x")["ActivationId"]
    second = ssm.create_activation(IamRole="b", DefaultInstanceName="x")["ActivationId"]

    def found(*filters: tuple[str, list[str]]) -> set[str]:
        answer = ssm.describe_activations(Filters=[{"FilterKey": k, "FilterValues": v} for k, v in filters])
        return {item["ActivationId"] for item in answer["ActivationList"]}

    assert found(("IamRole", ["a"])) == {first}
    assert found(("ActivationIds", [second])) == {second}
    assert found(("DefaultInstanceName", ["x"])) == {first, second}
    assert found(("DefaultInstanceName", ["x"]), ("IamRole", ["b"])) == {second}
    assert found(("IamRole", ["c"])) == set()


def test_activations_are_paged(ssm: Any) -> None:
    made = {ssm.create_activation(IamRole="role")["ActivationId"] for _ in range(5)}
    pages = list(ssm.get_paginator("describe_activations").paginate(PaginationConfig={"PageSize": 2}))
    assert [len(page["ActivationList"]) for page in pages] == [2, 2, 1]
    assert {item["ActivationId"] for page in pages for item in page["ActivationList"]} == made


def test_an_unknown_activation_cannot_be_deleted(ssm: Any) -> None:
    with pytest.raises(ClientError) as caught:
        ssm.delete_activation(ActivationId="00000000-0000-4000-8000-000000000000")
    assert caught.value.response["Error"]["Code"] == "InvalidActivation"


@pytest.mark.parametrize("service_call", ["describe_activations"])
def test_a_foreign_token_is_refused(ssm: Any, service_call: str) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(ssm, service_call)(NextToken="!")
    assert caught.value.response["Error"]["Code"] == "InvalidNextToken"
