"""What viewers of logs ask for in passing and Homeport doesn't have: there is none, and they go on.

What would make any of it isn't served, and says so by name.
"""

from controlplane.api.logs.arguments import find_group, group_of
from controlplane.api.logs.calls import logs_operation
from controlplane.api.registry import Document
from controlplane.context import Context

__all__: list[str] = []


@logs_operation("DescribeQueryDefinitions")
async def describe_query_definitions(context: Context, request: Document) -> Document:  # noqa: ARG001
    """Say that there are no saved queries."""
    return {"queryDefinitions": []}


@logs_operation("DescribeMetricFilters")
async def describe_metric_filters(context: Context, request: Document) -> Document:
    """Say that there are no metric filters."""
    group_of(context, request)
    return {"metricFilters": []}


@logs_operation("DescribeSubscriptionFilters")
async def describe_subscription_filters(context: Context, request: Document) -> Document:
    """Say that there are no subscription filters."""
    group_of(context, request)
    return {"subscriptionFilters": []}


@logs_operation("DescribeIndexPolicies")
async def describe_index_policies(context: Context, request: Document) -> Document:
    """Say that there are no field index policies."""
    for identifier in request["logGroupIdentifiers"]:
        find_group(context, identifier)
    return {"indexPolicies": []}


@logs_operation("DescribeAccountPolicies")
async def describe_account_policies(context: Context, request: Document) -> Document:  # noqa: ARG001
    """Say that there are no account policies."""
    return {"accountPolicies": []}


@logs_operation("DescribeResourcePolicies")
async def describe_resource_policies(context: Context, request: Document) -> Document:  # noqa: ARG001
    """Say that there are no resource policies."""
    return {"resourcePolicies": []}


@logs_operation("ListLogAnomalyDetectors")
async def list_log_anomaly_detectors(context: Context, request: Document) -> Document:  # noqa: ARG001
    """Say that there are no anomaly detectors."""
    return {"anomalyDetectors": []}


@logs_operation("ListAnomalies")
async def list_anomalies(context: Context, request: Document) -> Document:  # noqa: ARG001
    """Say that there are no anomalies."""
    return {"anomalies": []}
