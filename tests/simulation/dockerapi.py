"""What a simulated Engine does about each request of Docker's API, and the documents it answers with.

Only what the agent asks for is there. An effect comes within the call of a handler; what takes its time answers later.
"""

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

from agent.engine.api import ImageFacts
from agent.engine.pulls import split_reference
from tests.fakes.engine import image_facts
from tests.simulation import behaviour
from tests.simulation.containers import Container, Containers, Refusal
from tests.simulation.dockerd import Dockerd, Window
from tests.simulation.dockerlink import API_VERSION, Answer, Lines, Request
from tests.simulation.events import EventLog

__all__ = ["DockerApi", "Verb", "verb_of"]

#: The names of the verbs are those of `agent.engine.api`.
Verb = str
_Reply = Callable[[Answer], None]
_Image = tuple[str, str]

#: Seconds that each verb takes, from and to, when the Engine has nothing else to do; what isn't here is at once.
DURATIONS_S: Final[dict[Verb, tuple[float, float]]] = {
    "info": (0.002, 0.01),
    "create": (0.02, 0.15),
    "start": (0.1, 0.6),
    "stop": (0.002, 0.02),
    "remove": (0.002, 0.02),
    "create_volume": (0.005, 0.05),
    "remove_volume": (0.005, 0.05),
}
READ_S: Final = (0.001, 0.01)
#: Verbs that change nothing.
READS: Final = frozenset({"info", "version", "image", "inspect", "list", "volume_exists", "events", "logs"})
_REMOVAL_S: Final = (0.02, 0.3)
_PULL_STEPS: Final = 4
_NO_SPACE: Final = "no space left on device"


def verb_of(request: Request) -> Verb:
    """Return the verb of the Engine seam that a request belongs to."""
    parts = request.path.split("/")
    match request.method, parts[0], parts[-1]:
        case "GET", "images", _:
            return "image"
        case "POST", "images", _:
            return "pull"
        case "GET", "containers", "json":
            return "list" if len(parts) == 2 else "inspect"
        case "DELETE", "containers", _:
            return "remove"
        case "GET", "volumes", _:
            return "volume_exists"
        case "POST", "volumes", _:
            return "create_volume"
        case "DELETE", "volumes", _:
            return "remove_volume"
        case _, _, last:
            return last


class DockerApi:
    """The API of one Engine. `full`: the window in which its disk is full."""

    def __init__(
        self, name: str, chance: Random, dockerd: Dockerd, containers: Containers, events: EventLog, full: Window
    ) -> None:
        self.live_restore = True
        self._name = name
        self._chance = chance
        self._dockerd = dockerd
        self._containers = containers
        self._events = events
        self._full = full
        #: Image and tag -> whether it is on the host; what nobody has mentioned isn't here.
        self._images: dict[_Image, bool] = {}
        #: How often each was pulled.
        self._pulls: dict[_Image, int] = {}
        self._volumes: dict[str, dict[str, Any]] = {}
        self._handlers: dict[Verb, Callable[[Request, _Reply], None]] = {
            "info": self._info,
            "version": self._version,
            "image": self._image,
            "pull": self._pull,
            "create": self._create,
            "start": self._start,
            "stop": self._stop,
            "remove": self._remove,
            "inspect": self._inspect,
            "list": self._list,
            "events": self._read_events,
            "logs": self._read_logs,
            "create_volume": self._create_volume,
            "volume_exists": self._volume_exists,
            "remove_volume": self._remove_volume,
        }

    def handle(self, request: Request, reply: _Reply) -> None:
        """Do what a request asks for; `reply` is called now or later. Raises Refusal."""
        handler = self._handlers.get(verb_of(request))
        if handler is None:
            raise Refusal(404, f"page not found: {request.method} {request.path}")
        handler(request, reply)

    def add(self, name: str, image: str, body: dict[str, Any]) -> Container:
        """Put a container there that is nobody's business, and let it run."""
        self._images[split_reference(image)] = True
        container = self._containers.create(name, body | {"Image": image}, _facts(image).image_id, foreign=True)
        self._containers.start(container)
        container.entry.asked.clear()
        return container

    # ------------------------------------------------------------ the Engine and its images

    def _info(self, request: Request, reply: _Reply) -> None:
        document = {
            "ServerVersion": "28.0.0",
            "OSType": "linux",
            "Architecture": "x86_64",
            "CgroupVersion": "2",
            "CgroupDriver": "cgroupfs",
            "DockerRootDir": "/var/lib/docker",
            "LiveRestoreEnabled": self.live_restore,
            "Plugins": {"Log": ["json-file", "journald", "none"]},
            "NCPU": 2,
            "Name": self._name,
        }
        reply(Answer(200, document))

    def _version(self, request: Request, reply: _Reply) -> None:
        reply(Answer(200, {"ApiVersion": API_VERSION}))

    def _image(self, request: Request, reply: _Reply) -> None:
        reference = request.path.removeprefix("images/").removesuffix("/json")
        if not self._has(reference):
            raise Refusal(404, f"No such image: {reference}")
        facts = _facts(reference)
        repository, _ = split_reference(reference)
        reply(Answer(200, {"Id": facts.image_id, "RepoDigests": [f"{repository}@{facts.digest}"]}))

    def _has(self, reference: str) -> bool:
        image = split_reference(reference)
        if image not in self._images:
            self._images[image] = behaviour.on_host_from_the_beginning(image[0], self._chance)
        return self._images[image]

    def _pull(self, request: Request, reply: _Reply) -> None:
        image = name, tag = request.params["fromImage"], request.params["tag"]
        tries = self._pulls[image] = self._pulls.get(image, 0) + 1
        pull = behaviour.pull_of(name, tries, self._chance)
        if pull is None:
            raise Refusal(404, f"manifest for {name}:{tag} not found: manifest unknown: manifest unknown")
        request.lines = lines = Lines(request)
        reply(Answer(200, lines=lines))
        for step in range(1, _PULL_STEPS):
            detail = {"current": step * 1_000_000, "total": _PULL_STEPS * 1_000_000}
            self._say(pull.seconds * step / _PULL_STEPS, lines, id="layer", status="Downloading", progressDetail=detail)
        self._dockerd.work(pull.seconds, self._pulled, lines, image, pull.error)

    def _pulled(self, lines: Lines, image: _Image, error: str) -> None:
        if not lines.feed(b'{"status": "Pull complete", "id": "layer"}\n'):
            # The Engine gives a pull up when nobody waits for it.
            return
        if self._full:
            error = f"failed to register layer: write /var/lib/docker/layer: {_NO_SPACE}"
        if error:
            lines.feed(json.dumps({"errorDetail": {"message": error}, "error": error}).encode() + b"\n")
        else:
            self._images[image] = True
        lines.end()

    def _say(self, seconds: float, lines: Lines, **message: Any) -> None:
        self._dockerd.work(seconds, lines.feed, json.dumps(message).encode() + b"\n")

    # ------------------------------------------------------------ containers

    def _create(self, request: Request, reply: _Reply) -> None:
        image = request.body["Image"]
        if not self._has(image):
            raise Refusal(404, f"No such image: {image}")
        self._need_space("create")
        container = self._containers.create(request.params["name"], request.body, _facts(image).image_id)
        reply(Answer(201, {"Id": container.entry.id, "Warnings": []}))

    def _start(self, request: Request, reply: _Reply) -> None:
        container = self._container(request)
        if container.status != "running":
            self._need_space("start")
        reply(Answer(204 if self._containers.start(container) else 304))

    def _stop(self, request: Request, reply: _Reply) -> None:
        container = self._container(request)
        if not self._containers.stop(container, float(request.params["t"]), lambda: reply(Answer(204))):
            reply(Answer(304))

    def _remove(self, request: Request, reply: _Reply) -> None:
        container = self._container(request)
        self._containers.remove(container, self._chance.uniform(*_REMOVAL_S), lambda: reply(Answer(204)))

    def _inspect(self, request: Request, reply: _Reply) -> None:
        reply(Answer(200, self._container(request).document()))

    def _list(self, request: Request, reply: _Reply) -> None:
        wanted = _labels(request)
        found = [c.summary() for c in self._containers if wanted.items() <= c.entry.labels.items()]
        reply(Answer(200, found))

    def _container(self, request: Request) -> Container:
        return self._containers.get(request.path.split("/")[1])

    def _need_space(self, verb: str) -> None:
        if self._full:
            raise Refusal(500, f"failed to {verb} container: mkdir /var/lib/docker/overlay2/new: {_NO_SPACE}")

    # ------------------------------------------------------------ streams

    def _read_events(self, request: Request, reply: _Reply) -> None:
        since = request.params.get("since")
        seconds, _, fraction = (since or "").partition(".")
        request.lines = lines = Lines(request)
        reply(Answer(200, lines=lines))
        self._events.read(_labels(request), int(seconds + fraction) if since else None, lines.feed)

    def _read_logs(self, request: Request, reply: _Reply) -> None:
        self._container(request)
        request.lines = lines = Lines(request)
        lines.end()
        reply(Answer(200, lines=lines))

    # ------------------------------------------------------------ volumes

    def _create_volume(self, request: Request, reply: _Reply) -> None:
        self._volumes.setdefault(request.body["Name"], request.body)
        reply(Answer(201, {"Name": request.body["Name"]}))

    def _volume_exists(self, request: Request, reply: _Reply) -> None:
        reply(Answer(200, {"Name": self._volume(request)}))

    def _remove_volume(self, request: Request, reply: _Reply) -> None:
        name = self._volume(request)
        for container in self._containers:
            binds = (container.entry.body.get("HostConfig") or {}).get("Binds") or ()
            if any(bind.partition(":")[0] == name for bind in binds):
                raise Refusal(409, f"remove {name}: volume is in use - [{container.entry.id}]")
        del self._volumes[name]
        reply(Answer(204))

    def _volume(self, request: Request) -> str:
        name = request.path.split("/", 1)[1]
        if name not in self._volumes:
            raise Refusal(404, f"get {name}: no such volume")
        return name


def _facts(reference: str) -> ImageFacts:
    """Return an image's id and digest: a bare name and its tag `latest` have the same."""
    return image_facts(":".join(split_reference(reference)))


def _labels(request: Request) -> dict[str, str]:
    filters = json.loads(request.params.get("filters", "{}"))
    return dict(entry.split("=", 1) for entry in filters.get("label", ()))
