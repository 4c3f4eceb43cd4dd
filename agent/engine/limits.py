"""How long each call to the Engine may take, and how many of a kind run at once. The times are those of ECS's agent."""

import msgspec

__all__ = ["DEFAULT_LIMITS", "Limits"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the calls. Times in seconds, from the moment a call is sent; waiting for a turn is not counted."""

    # ECS's agent gives inspect half a minute; these are as cheap.
    info_s: float = 30
    image_s: float = 30
    inspect_s: float = 30
    list_s: float = 600
    create_s: float = 240
    start_s: float = 180
    #: On top of the container's own stop timeout.
    stop_margin_s: float = 120
    remove_s: float = 300
    volume_s: float = 240
    #: Until the headers of a stream (events, logs) have come.
    open_s: float = 30
    #: Until a log that isn't followed goes on.
    log_idle_s: float = 60
    #: Until the registry's first word, between two signs of progress, and in all.
    pull_begin_s: float = 300
    pull_idle_s: float = 60
    pull_total_s: float = 7200
    #: An event stream is opened anew, with a `resync`, when it gets this old: what got lost is found by then.
    events_age_s: float = 300
    #: A reader that was away for longer may have lost events: the Engine drops them for slow readers.
    events_stall_s: float = 5
    #: Pause before an event stream is opened again: the first, then doubling up to the last.
    events_retry_min_s: float = 0.1
    events_retry_max_s: float = 2

    #: Calls at once. More starts or removes at once are slower in sum (the Engine contends for kernel locks); the start
    #: limit moves between 1 and 3 times the Engine's cores by what it measures.
    creates: int = 8
    removes: int = 6
    pulls: int = 8
    reads: int = 16
    log_streams: int = 64


DEFAULT_LIMITS = Limits()
