"""Logs Insights: queries over log groups. They run in the background; results are asked for until they are complete."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final

from controlplane.api.errors import ApiError
from controlplane.api.logs.arguments import find_group, invalid_token, page_token, required_group, token_key
from controlplane.api.logs.calls import invalid, logs_operation
from controlplane.api.registry import CALLER, Document
from controlplane.context import Context
from controlplane.logs.insights.parser import MAX_LIMIT, parse_query
from controlplane.logs.insights.plan import Plan, make_plan
from controlplane.logs.insights.queries import MAX_CONCURRENT, Query, TooManyQueries
from controlplane.logs.insights.rows import MAX_FIELDS, Pointer, all_fields
from controlplane.logs.insights.syntax import MalformedQuery
from homeport.ids import new_uuid

__all__ = ["MAX_GROUPS", "MalformedQueryException"]

#: CloudWatch's limits: groups of a query, rows when a query doesn't say, rows in one answer.
MAX_GROUPS: Final = 50
_DEFAULT_LIMIT: Final = 10_000
_PAGE: Final = 10_000
#: Times above it (the year 5138) are milliseconds.
_LAST_SECOND: Final = 10**11
#: GetLogGroupFields looks at so many events at most, of so long.
_SAMPLED: Final = 2000
_RECENT_S: Final = 15 * 60
_AROUND_S: Final = 8 * 60
_GROUP_MEMBERS: Final = ("logGroupName", "logGroupNames", "logGroupIdentifiers")


class MalformedQueryException(ApiError):
    """The query can't be understood. Carries where, as offsets in its text."""

    def __init__(self, error: MalformedQuery) -> None:
        super().__init__(f"{error.message} (at character {error.start + 1})")
        location = {"startCharOffset": error.start, "endCharOffset": error.end}
        self.members = {"queryCompileError": {"location": location, "message": error.message}}


# ---------------------------------------------------------------- queries


@logs_operation("StartQuery")
async def start_query(context: Context, request: Document) -> Document:
    """Start a query."""
    language = request.get("queryLanguage", "CWLI")
    if language != "CWLI":
        raise invalid(f"queryLanguage: Homeport speaks Logs Insights QL (CWLI) only, not {language}.")
    start, end = _range(request)
    groups = _groups(context, request)
    now = context.clock.now()
    query = Query(
        id=new_uuid(context.random),
        text=request["queryString"],
        # In a thread, since a long query takes a while to parse.
        plan=await asyncio.to_thread(_plan, request, now),
        groups=groups,
        start=start,
        end=end,
        created_at=now,
        user=CALLER.get(),
    )
    try:
        await context.queries.start(query)
    except TooManyQueries:
        raise ApiError(
            f"{MAX_CONCURRENT} queries are waiting or running already, which is the limit: wait for one to end, or "
            "stop one.",
            code="LimitExceededException",
        ) from None
    return {"queryId": query.id}


@logs_operation("GetQueryResults")
async def get_query_results(context: Context, request: Document) -> Document:
    """Return the rows of a query that is complete, else how far it is. Why one failed is in a row of its own."""
    query = _known(context, request)
    begin = _offset(request, query)
    end = min(begin + request.get("maxItems", _PAGE), len(query.rows))
    rows: Sequence[Any] = query.rows[begin:end]
    if query.reason:
        rows = [[("@reason", query.reason)]]
    answer: Document = {
        "queryLanguage": "CWLI",
        "results": [[{"field": name, "value": value} for name, value in row] for row in rows],
        "statistics": {
            "recordsMatched": float(query.records_matched),
            "recordsScanned": float(query.records_scanned),
            "bytesScanned": float(query.bytes_scanned),
            "estimatedRecordsSkipped": 0.0,
            "estimatedBytesSkipped": 0.0,
            "logGroupsScanned": float(query.groups_scanned),
            "resultCount": float(len(query.rows)),
        },
        "status": query.status.value,
    }
    if end < len(query.rows):
        answer["nextToken"] = page_token("GetQueryResults", (query.id, end))
    return answer


@logs_operation("StopQuery")
async def stop_query(context: Context, request: Document) -> Document:
    """Stop a query that hasn't ended."""
    query = _known(context, request)
    if not context.queries.stop(query, context.clock.now()):
        raise invalid(f"The query {query.id} is not running: its status is {query.status.value}.")
    return {"success": True}


@logs_operation("DescribeQueries")
async def describe_queries(context: Context, request: Document) -> Document:
    """List the queries that are known, the newest first."""
    group = request.get("logGroupName")
    status = request.get("status")
    found = [
        query
        for query in context.queries.newest_first()
        if (group is None or group in query.groups)
        and (status is None or query.status.value == status)
        and request.get("queryLanguage", "CWLI") == "CWLI"
    ]
    after = token_key(request, "DescribeQueries", tuple[str])
    if after is not None:
        place = next((number for number, query in enumerate(found) if query.id == after[0]), None)
        if place is None:
            raise invalid_token()
        found = found[place + 1 :]
    page = found[: request.get("maxResults", 1000)]
    answer: Document = {"queries": [_info(query) for query in page]}
    if len(found) > len(page):
        answer["nextToken"] = page_token("DescribeQueries", (page[-1].id,))
    return answer


def _range(request: Document) -> tuple[int, int]:
    """Return the time of the query in milliseconds; both given times belong to it."""
    start, _ = _instant(request, "startTime")
    end, unit = _instant(request, "endTime")
    if end < start:
        given = request["endTime"], request["startTime"]
        raise invalid("endTime must not be before startTime, but {} is before {}.".format(*given))
    return start, end + unit


def _instant(request: Document, member: str) -> tuple[int, int]:
    """Return a time, and the unit in which it is given, in milliseconds.

    Seconds; but many programs give milliseconds, as AWS's own examples do, and CloudWatch takes them.
    """
    given: int = request[member]
    if given > _LAST_SECOND * 1000:
        raise invalid(f"{member} is in seconds since the epoch; {given} is too large even for milliseconds.")
    return (given, 1) if given > _LAST_SECOND else (given * 1000, 1000)


def _groups(context: Context, request: Document) -> dict[str, str]:
    """Return the names of the groups to query, with what @log shows of each."""
    given = [member for member in _GROUP_MEMBERS if request.get(member)]
    if len(given) != 1:
        raise invalid(f"Exactly one of {', '.join(_GROUP_MEMBERS)} must be given, but {len(given)} are.")
    named = request[given[0]]
    names = [named] if isinstance(named, str) else named
    if len(names) > MAX_GROUPS:
        raise invalid(f"{given[0]} can have at most {MAX_GROUPS} items, but has {len(names)}.")
    find = context.logs.group if given[0] != "logGroupIdentifiers" else lambda name: find_group(context, name)
    return {(name := find(each).name): f"{context.arns.account}:{name}" for each in names}


def _plan(request: Document, now: float) -> Plan:
    limit = request.get("limit", _DEFAULT_LIMIT)
    if not 1 <= limit <= MAX_LIMIT:
        raise invalid(f"limit must be between 1 and {MAX_LIMIT}, but was {limit}.")
    try:
        return make_plan(parse_query(request["queryString"]), limit=limit, now=now)
    except MalformedQuery as error:
        raise MalformedQueryException(error) from error


def _known(context: Context, request: Document) -> Query:
    query = context.queries.find(request["queryId"])
    if query is None:
        raise ApiError(
            f"There is no query {request['queryId']:.100}: its results are kept for a day, and not beyond a restart of "
            "the control plane.",
            code="ResourceNotFoundException",
        )
    return query


def _offset(request: Document, query: Query) -> int:
    key = token_key(request, "GetQueryResults", tuple[str, int])
    if key is None:
        return 0
    if key[0] != query.id:
        raise invalid_token()
    return key[1]


def _info(query: Query) -> Document:
    info: Document = {
        "queryLanguage": "CWLI",
        "queryId": query.id,
        "queryString": query.text,
        "status": query.status.value,
        "createTime": int(query.created_at * 1000),
        "logGroupName": next(iter(query.groups)),
        "bytesScanned": float(query.bytes_scanned),
    }
    if query.began_at is not None and query.ended_at is not None:
        info["queryDuration"] = max(int((query.ended_at - query.began_at) * 1000), 0)
    if query.user:
        info["userIdentity"] = query.user
    return info


# ---------------------------------------------------------------- fields


@logs_operation("GetLogGroupFields")
async def get_log_group_fields(context: Context, request: Document) -> Document:
    """Return the fields of a group's events of a time, and how many of the events have each, in percent."""
    group = required_group(context, request).name
    start, end = _sampled_range(context, request)
    counts: Counter[str] = Counter()
    events = 0
    async with aclosing(context.logs.scan(group, start=start, end=end)) as chunks:
        async for chunk in chunks:
            texts = [event.text for _, event in chunk[: _SAMPLED - events]]
            counts.update(await asyncio.to_thread(_count_fields, texts))
            events += len(texts)
            if events >= _SAMPLED:
                break
    if not events:
        return {"logGroupFields": []}
    always = ("@ingestionTime", "@log", "@logStream", "@message", "@timestamp")
    counts.update(dict.fromkeys(always, events))
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    fields = [{"name": name, "percent": count * 100 // events} for name, count in ordered]
    return {"logGroupFields": fields[: MAX_FIELDS + len(always)]}


@logs_operation("GetLogRecord")
async def get_log_record(context: Context, request: Document) -> Document:
    """Return all fields of the event that a `@ptr` means."""
    try:
        pointer = Pointer.decode(request["logRecordPointer"])
    except ValueError:
        raise invalid("logRecordPointer is not one that a query returned as @ptr.") from None
    name = pointer.group.partition(":")[2]
    key = (pointer.at, pointer.number)
    found = await context.logs.read(
        name, pointer.stream, after=(key[0], key[1] - 1), before=(key[0], key[1] + 1), limit=1
    )
    if not found:
        raise ApiError("The log event has expired.", code="ResourceNotFoundException")
    [event] = found
    record = {
        **all_fields(event.text),
        "@timestamp": str(event.at),
        "@ingestionTime": str(event.ingested_at),
        "@message": event.text,
        "@logStream": pointer.stream,
        "@log": pointer.group,
    }
    return {"logRecord": record}


def _count_fields(texts: Sequence[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(all_fields(text).keys())
    return counts


def _sampled_range(context: Context, request: Document) -> tuple[int, int]:
    if "time" not in request:
        now = context.clock.now()
        return int((now - _RECENT_S) * 1000), int(now * 1000) + 1
    middle, _ = _instant(request, "time")
    return middle - _AROUND_S * 1000, middle + _AROUND_S * 1000 + 1
