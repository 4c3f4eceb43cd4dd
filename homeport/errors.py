"""The errors Homeport raises itself.

    HomeportError
     ├── ProtocolError        a peer broke the agent protocol
     ├── IllegalTransition    a task was to be moved along an edge its mover does not own (a bug)
     ├── InvalidArn           a string is not an ARN of the kind asked for
     ├── ConfigurationError   a setting or flag can't be used; its text is shown to the operator
     └── JournalError         what must be remembered can't be; the process must end

Answers of the ECS API have a tree of their own in `controlplane.api.errors`, the Engine's in `agent.engine.errors`.
"""

__all__ = [
    "ConfigurationError",
    "HomeportError",
    "IllegalTransition",
    "InvalidArn",
    "JournalError",
    "ProtocolError",
    "leaves",
]


class HomeportError(Exception):
    """Parent of every error in this module."""


class ProtocolError(HomeportError):
    """A peer sent something the agent protocol doesn't allow; the session ends and starts anew."""


class IllegalTransition(HomeportError):
    """A status was to move along an edge that its mover does not own."""


class InvalidArn(HomeportError, ValueError):
    """A string isn't an ARN of the kind asked for."""


class ConfigurationError(HomeportError):
    """A setting can't be used. The text names the setting and says what would be accepted."""


class JournalError(HomeportError):
    """A journal can't be read or written. The process must end: memory must never run ahead of what is durable."""


def leaves(error: BaseException) -> list[BaseException]:
    """Return what an exception group holds, however deeply nested; any other exception alone."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for member in error.exceptions for leaf in leaves(member)]
    return [error]
