"""Webhooks through kills of the control plane: nothing is lost, nothing out of order, and signatures hold."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.e2e.harness import Installation, eventually

pytestmark = pytest.mark.e2e

KEY = b"0123456789abcdef01234567"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
KILLS = 3
TASKS = 9


@contextmanager
def a_receiver(every: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve an endpoint that refuses every so manieth request; yields its URL and the events that it took."""
    taken: list[dict[str, Any]] = []
    count = iter(range(10**9))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            message = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
            expected = base64.b64encode(hmac.digest(KEY, message, hashlib.sha256)).decode()
            good = self.headers["webhook-signature"] == f"v1,{expected}"
            refused = next(count) % every == every - 1
            if good and not refused:
                taken.append(json.loads(body))
            self.send_response(401 if not good else 503 if refused else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", taken
        finally:
            server.shutdown()
            thread.join()


def add_webhook(events: Any, url: str) -> None:
    key = {"ApiKeyAuthParameters": {"ApiKeyName": "webhook-signature", "ApiKeyValue": SECRET}}
    connection = events.create_connection(Name="hook", AuthorizationType="API_KEY", AuthParameters=key)
    destination = events.create_api_destination(
        Name="hook", ConnectionArn=connection["ConnectionArn"], InvocationEndpoint=url, HttpMethod="POST"
    )
    pattern = {"detail-type": ["ECS Task State Change"], "detail": {"startedBy": ["webhook-test"]}}
    events.put_rule(Name="hook", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="hook", Targets=[{"Id": "hook", "Arn": destination["ApiDestinationArn"]}])


def test_a_webhook_gets_every_event_in_order_through_kills_of_the_control_plane(
    homeport: Installation, busybox: str
) -> None:
    container = {"name": "app", "image": busybox, "command": ["sleep", "600"], "stopTimeout": 2}
    definition = homeport.register("hooked", container)
    with a_receiver(every=15) as (url, taken):
        add_webhook(homeport.client("events"), url)
        arns = homeport.run(definition, count=TASKS, startedBy="webhook-test")

        def are(status: str) -> int:
            """How many tasks are in this state by the last event that was taken of each."""
            last = {event["detail"]["taskArn"]: event["detail"]["lastStatus"] for event in taken}
            return list(last.values()).count(status)

        for number in range(KILLS):
            few = arns[number::KILLS]
            eventually(lambda: are("RUNNING") == TASKS - number * len(few))  # noqa: B023 - it is over by the next round
            for arn in few:
                homeport.ecs.stop_task(task=arn)
            homeport.control_plane.kill()
            homeport.start_control_plane()
        eventually(lambda: are("STOPPED") == TASKS, within_s=60)
    once = list({event["id"]: event for event in taken}.values())
    assert len(taken) - len(once) <= 11 * KILLS  # what a kill may repeat
    for arn in arns:
        versions = [event["detail"]["version"] for event in once if event["detail"]["taskArn"] == arn]
        assert versions == sorted(versions)
