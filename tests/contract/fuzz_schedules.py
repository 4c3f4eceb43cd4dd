"""For the fuzz test: right requests of EventBridge Scheduler and EventBridge, and REST requests made of documents."""

from typing import Any
from urllib.parse import quote, urlencode

from botocore.serialize import create_serializer
from hypothesis import reject

from tests.contract.schedules import CLUSTER, ecs_target, schedule
from tests.contract.server import ACCOUNT, REGION, Answer, ApiServer, sign

__all__ = ["right_schedule_requests", "send_rest"]

_GROUP = f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule-group/jobs"
_RULE = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/rule"


def right_schedule_requests(server: ApiServer) -> dict[str, dict[str, Any]]:
    """Make one of each thing; return `SERVICE.OPERATION` -> a request that is served."""
    scheduler, events = server.client("scheduler"), server.client("events")
    scheduler.create_schedule_group(Name="jobs")
    scheduler.create_schedule(**schedule(GroupName="jobs"))
    rule = {"Name": "rule", "ScheduleExpression": "rate(1 hour)"}
    events.put_rule(**rule)
    targets = [{"Id": "one", **ecs_target()}]
    key = {"ApiKeyAuthParameters": {"ApiKeyName": "x-key", "ApiKeyValue": "hush"}}
    connection = {"Name": "connection", "AuthorizationType": "API_KEY", "AuthParameters": key}
    connection_arn = events.create_connection(**connection)["ConnectionArn"]
    endpoint = {"InvocationEndpoint": "https://hooks.example.com/*", "HttpMethod": "POST"}
    destination = {"Name": "destination", "ConnectionArn": connection_arn, **endpoint}
    arn = events.create_api_destination(**destination)["ApiDestinationArn"]
    http = {"PathParameterValues": ["$.detail.group"], "HeaderParameters": {"x-a": "1"}}
    transformer = {"InputPathsMap": {"a": "$.detail"}, "InputTemplate": '{"a": <a>}'}
    targets.append({"Id": "two", "Arn": arn, "HttpParameters": http, "InputTransformer": transformer})
    pattern = '{"source": ["aws.ecs"], "detail": {"lastStatus": [{"prefix": "RUN"}]}}'
    event = (
        '{"id": "1", "account": "1", "source": "aws.ecs", "time": "", "region": "", "resources": [], "detail-type": ""}'
    )
    tags = [{"Key": "a", "Value": "b"}]
    return {
        "scheduler.CreateSchedule": schedule(Name="other"),
        "scheduler.UpdateSchedule": schedule(GroupName="jobs"),
        "scheduler.GetSchedule": {"Name": "job", "GroupName": "jobs"},
        "scheduler.DeleteSchedule": {"Name": "other"},
        "scheduler.CreateScheduleGroup": {"Name": "others", "Tags": tags},
        "scheduler.GetScheduleGroup": {"Name": "jobs"},
        "scheduler.DeleteScheduleGroup": {"Name": "others"},
        "scheduler.TagResource": {"ResourceArn": _GROUP, "Tags": tags},
        "scheduler.UntagResource": {"ResourceArn": _GROUP, "TagKeys": ["a"]},
        "scheduler.ListTagsForResource": {"ResourceArn": _GROUP},
        "events.DescribeEventBus": {"Name": "default"},
        "events.CreateConnection": {**connection, "Name": "other"},
        "events.UpdateConnection": {"Name": "connection", "AuthParameters": key},
        "events.DescribeConnection": {"Name": "connection"},
        "events.DeleteConnection": {"Name": "other"},
        "events.CreateApiDestination": {**destination, "Name": "other"},
        "events.UpdateApiDestination": {"Name": "destination", **endpoint},
        "events.DescribeApiDestination": {"Name": "destination"},
        "events.DeleteApiDestination": {"Name": "other"},
        "events.PutEvents": {"Entries": [{"Source": "shop", "DetailType": "Order", "Detail": "{}", "Time": 1.0}]},
        "events.TestEventPattern": {"EventPattern": pattern, "Event": event},
        "events.PutRule": {**rule, "EventPattern": pattern},
        "events.DescribeRule": {"Name": "rule"},
        "events.EnableRule": {"Name": "rule"},
        "events.DisableRule": {"Name": "rule"},
        "events.DeleteRule": {"Name": "unknown"},
        "events.PutTargets": {"Rule": "rule", "Targets": targets},
        "events.RemoveTargets": {"Rule": "rule", "Ids": ["one"]},
        "events.ListTargetsByRule": {"Rule": "rule"},
        "events.ListRuleNamesByTarget": {"TargetArn": CLUSTER},
        "events.TagResource": {"ResourceARN": _RULE, "Tags": tags},
        "events.UntagResource": {"ResourceARN": _RULE, "TagKeys": ["a"]},
        "events.ListTagsForResource": {"ResourceARN": _RULE},
    }


def send_rest(server: ApiServer, model: Any, request: dict[str, Any]) -> Answer:
    """Send a request as botocore puts it into path, query and body; what it can't is no example."""
    labels = [
        name for name, member in model.input_shape.members.items() if member.serialization.get("location") == "uri"
    ]
    if any(not request.get(name) for name in labels):
        reject()  # it would be another operation
    try:
        made = create_serializer("rest-json", include_validation=False).serialize_to_request(request, model)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        reject()
    query = urlencode(sorted(made["query_string"].items()), doseq=True, quote_via=quote)
    path = made["url_path"] + (f"?{query}" if query else "")
    body = made["body"] or b""
    headers = sign(server.url + path, None, body, method=made["method"], service=model.service_model.signing_name)
    return server.send(made["method"], path, headers, body)
