"""Viewers that ask in passing for what Homeport doesn't have hear that there is none, and go on."""

from typing import Any

import pytest

from tests.contract.logs import GROUP, GROUP_ARN, made
from tests.contract.refusals import refused
from tests.contract.server import ApiServer


@pytest.fixture
def logs(server: ApiServer) -> Any:
    return made(server)


def test_there_is_none_of_what_is_not_served(logs: Any) -> None:
    assert logs.describe_query_definitions(queryLanguage="CWLI")["queryDefinitions"] == []
    assert logs.describe_metric_filters()["metricFilters"] == []
    assert logs.describe_metric_filters(logGroupName=GROUP)["metricFilters"] == []
    assert logs.describe_subscription_filters(logGroupName=GROUP)["subscriptionFilters"] == []
    assert logs.describe_index_policies(logGroupIdentifiers=[GROUP_ARN])["indexPolicies"] == []
    assert logs.describe_account_policies(policyType="FIELD_INDEX_POLICY")["accountPolicies"] == []
    assert logs.describe_resource_policies()["resourcePolicies"] == []
    assert logs.list_log_anomaly_detectors(filterLogGroupArn=GROUP_ARN)["anomalyDetectors"] == []
    assert logs.list_anomalies()["anomalies"] == []


def test_of_a_group_that_is_not_there_nothing_is_said(logs: Any) -> None:
    missing = ("ResourceNotFoundException", "The specified log group does not exist.")
    assert refused(logs.describe_metric_filters, logGroupName="none") == missing
    assert refused(logs.describe_subscription_filters, logGroupName="none") == missing
    assert refused(logs.describe_index_policies, logGroupIdentifiers=["none"]) == missing


def test_making_any_of_it_is_refused_by_name(logs: Any) -> None:
    code, message = refused(logs.put_query_definition, name="errors", queryString="fields @message")
    assert code == "UnsupportedFeatureException"
    assert "PutQueryDefinition" in message
