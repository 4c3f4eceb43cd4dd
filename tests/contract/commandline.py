"""The type of the fixture `homeport`: runs the command line and checks its exit code."""

from collections.abc import Callable

from click.testing import Result

__all__ = ["Homeport"]

Homeport = Callable[..., Result]
