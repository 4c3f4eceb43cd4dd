"""What can go wrong between the agent and the Docker Engine.

    EngineError
     ├── EngineUnavailable   the Engine can't be reached; says nothing about any container
     ├── EngineTimeout       a call took longer than its limit; it may have had its effect all the same
     ├── NotFound            no such container, image, volume or network
     ├── Conflict            the name is taken, or the object is in a state that forbids the call
     └── Rejected            the Engine refused: bad image name, unknown user, port taken, ...

`EngineUnavailable` and `EngineTimeout` never change what is known of a container (Docker silent: state freezes).
"""

__all__ = ["Conflict", "EngineError", "EngineTimeout", "EngineUnavailable", "NotFound", "Rejected"]


class EngineError(Exception):
    """Parent of all. `str()` is the Engine's own message, fit to be shown to a user."""


class EngineUnavailable(EngineError):
    """The Engine's socket can't be reached, or the connection broke before an answer came."""


class EngineTimeout(EngineError):
    """No answer within the call's limit. The effect may have happened: inspect before deciding."""


class NotFound(EngineError):
    """The Engine knows no such object."""


class Conflict(EngineError):
    """The object exists already, or its state forbids the call."""


class Rejected(EngineError):
    """The Engine understood and said no."""
