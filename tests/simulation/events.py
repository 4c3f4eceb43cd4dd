"""The event stream of a simulated Engine, with what the real one does wrong: it forgets, loses and is late."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from tests.simulation.dockerd import Dockerd, Window

__all__ = ["EventLog"]

#: How many the Engine remembers, for whoever asks for those since a moment.
_REMEMBERED: Final = 256

#: Takes the line of an event, and tells whether there is still somebody who reads.
_Feed = Callable[[bytes], bool]


class EventLog:
    """What the Engine tells its readers. `losing` and `late` are windows in which that goes wrong."""

    def __init__(self, dockerd: Dockerd) -> None:
        self.losing = Window(dockerd)
        self.late = Window(dockerd, self._catch_up)
        self._remembered: deque[tuple[int, Mapping[str, str], bytes]] = deque(maxlen=_REMEMBERED)
        self._held_back: list[tuple[int, Mapping[str, str], bytes]] = []
        self._readers: list[tuple[dict[str, str], _Feed]] = []

    def tell(self, at: float, action: str, container_id: str, labels: Mapping[str, str], **attributes: str) -> None:
        """Something happened to a container."""
        if self.losing:
            return
        at_ns = int(at * 1e9)
        document: dict[str, Any] = {
            "Type": "container",
            "Action": action,
            "Actor": {"ID": container_id, "Attributes": {**labels, **attributes}},
            "time": int(at),
            "timeNano": at_ns,
        }
        event = (at_ns, labels, msgspec.json.encode(document) + b"\n")
        if self.late:
            self._held_back.append(event)
        else:
            self._give(event)

    def read(self, labels: dict[str, str], since_ns: int | None, feed: _Feed) -> None:
        """Feed a reader with events of containers that carry `labels`: those since a moment, if given, and all new."""
        if since_ns is not None:
            for at_ns, of, line in self._remembered:
                if at_ns >= since_ns and labels.items() <= of.items():
                    feed(line)
        self._readers.append((labels, feed))

    def forget(self) -> None:
        """The Engine has died: nothing is remembered, and its readers are gone."""
        self._remembered.clear()
        self._held_back.clear()
        self._readers.clear()

    def _catch_up(self) -> None:
        held_back, self._held_back = self._held_back, []
        for event in held_back:
            self._give(event)

    def _give(self, event: tuple[int, Mapping[str, str], bytes]) -> None:
        self._remembered.append(event)
        _, labels, line = event
        self._readers = [
            (wanted, feed) for wanted, feed in self._readers if not wanted.items() <= labels.items() or feed(line)
        ]
