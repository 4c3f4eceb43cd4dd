"""The log store over Grafana Loki: groups and streams in a catalog here, the events there.

Needs Loki 3 with structured metadata (its default schema since then). Homeport's streams have these labels in Loki:

    homeport_group, homeport_stream        their names, for people who look with Grafana
    homeport_group_id, homeport_stream_id  which of all that ever had these names, for Homeport

One Loki stream for each log stream: Loki refuses what is an hour older than the newest of its stream, so streams of
different hosts in one would lose what a host ships that was cut off. Its limit on streams that are written to at a time
(`max_global_streams_per_user`, 5,000) must be above the number of containers that write within half an hour.
What comes late all the same (PutLogEvents takes events of the last fortnight, in any order of calls) goes to a stream
of its own for each hour, with the label homeport_late.

An event's number, kind and time of ingestion are structured metadata of its line, which is the text and nothing else.
"""
