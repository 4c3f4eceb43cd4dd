"""For the fuzz test: right requests of CloudWatch Logs."""

from typing import Any

from controlplane.logs.insights.queries import QueryStatus
from tests.contract.logs import GROUP, GROUP_ARN, STREAM, made, millis, put
from tests.contract.server import ApiServer

__all__ = ["right_logs_requests"]


def right_logs_requests(server: ApiServer) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Make groups, a stream and events; return `logs.OPERATION` -> a request that is served, and tokens.

    What is protected or deleted has a name of its own, so that the rest stays as it is.
    """
    logs = made(server)
    for name in ("doomed", "protected"):
        logs.create_log_group(logGroupName=name)
    logs.create_log_stream(logGroupName=GROUP, logStreamName="doomed")
    now = millis(server)
    put(logs, [(now, "a"), (now, "b")])
    group, stream = {"logGroupName": GROUP}, {"logGroupName": GROUP, "logStreamName": STREAM}
    resource, tags = {"resourceArn": GROUP_ARN}, {"tags": {"a": "b"}}
    tokens = [
        logs.get_log_events(**stream, limit=1)["nextBackwardToken"],
        logs.describe_log_groups(limit=1)["nextToken"],
        logs.describe_log_streams(**group, limit=1)["nextToken"],
    ]
    query = {**group, "startTime": now // 1000 - 60, "endTime": now // 1000 + 60, "queryString": "fields @message"}
    query_id, pointer = _queried(server, logs, query)
    return {
        "logs.StartQuery": query,
        "logs.GetQueryResults": {"queryId": query_id},
        "logs.StopQuery": {"queryId": query_id},
        "logs.DescribeQueries": {"status": "Complete"},
        "logs.GetLogGroupFields": group,
        "logs.GetLogRecord": {"logRecordPointer": pointer},
        "logs.CreateLogGroup": {"logGroupName": "new", **tags},
        "logs.DeleteLogGroup": {"logGroupName": "doomed"},
        "logs.DescribeLogGroups": {"logGroupNamePrefix": "/"},
        "logs.ListLogGroups": {"logGroupNamePattern": "^/homeport"},
        "logs.CreateLogStream": {**group, "logStreamName": "new"},
        "logs.DeleteLogStream": {**group, "logStreamName": "doomed"},
        "logs.DescribeLogStreams": {"logGroupIdentifier": GROUP_ARN, "orderBy": "LastEventTime"},
        "logs.PutLogEvents": {**stream, "logEvents": [{"timestamp": now, "message": "c"}]},
        "logs.GetLogEvents": {**stream, "limit": 1, "startTime": now, "nextToken": tokens[0]},
        "logs.FilterLogEvents": {**group, "filterPattern": "a"},
        "logs.DescribeMetricFilters": group,
        "logs.DescribeSubscriptionFilters": group,
        "logs.DescribeIndexPolicies": {"logGroupIdentifiers": [GROUP_ARN]},
        "logs.DescribeAccountPolicies": {"policyType": "FIELD_INDEX_POLICY"},
        "logs.TestMetricFilter": {"filterPattern": "a", "logEventMessages": ["a"]},
        "logs.PutRetentionPolicy": {**group, "retentionInDays": 7},
        "logs.DeleteRetentionPolicy": group,
        "logs.PutLogGroupDeletionProtection": {"logGroupIdentifier": "protected", "deletionProtectionEnabled": True},
        "logs.TagResource": {**resource, **tags},
        "logs.UntagResource": {**resource, "tagKeys": ["a"]},
        "logs.ListTagsForResource": resource,
        "logs.TagLogGroup": {**group, **tags},
        "logs.UntagLogGroup": {**group, "tags": ["a"]},
        "logs.ListTagsLogGroup": group,
    }, tokens


def _queried(server: ApiServer, logs: Any, query: dict[str, Any]) -> tuple[str, str]:
    """Run a query to its end; return its id and the pointer to an event that it found."""
    query_id: str = logs.start_query(**query)["queryId"]
    server.wait_until(lambda: server.context.queries.newest_first()[0].status is QueryStatus.COMPLETE)
    row = logs.get_query_results(queryId=query_id)["results"][0]
    return query_id, next(field["value"] for field in row if field["field"] == "@ptr")
