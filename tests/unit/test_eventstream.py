"""Frames of AWS's event stream, read back by botocore."""

from botocore.eventstream import EventStreamBuffer

from controlplane.api.eventstream import INITIAL, StreamedEvent


def test_botocore_reads_what_is_written() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(INITIAL.encode() + StreamedEvent("news", {"text": "ü\n"}).encode())
    buffer.add_data(StreamedEvent("Ended", {"message": "over"}, is_error=True).encode())
    first, news, ended = buffer
    assert (first.headers[":event-type"], first.payload) == ("initial-response", b"{}")
    assert news.headers == {":message-type": "event", ":event-type": "news", ":content-type": "application/json"}
    assert news.payload.decode() == '{"text":"ü\\n"}'
    assert (ended.headers[":message-type"], ended.headers[":exception-type"]) == ("exception", "Ended")
