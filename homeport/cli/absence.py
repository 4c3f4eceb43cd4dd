"""A control plane that goes away while something is followed: it is waited for, and said once that it is."""

import time
from typing import Final

from homeport.cli.errors import CannotConnect, CliError
from homeport.cli.output import say

__all__ = ["Absence", "is_absence"]

#: Seconds before the next attempt to go on, growing up to the last.
_PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0)


#: What one that is stopping answers while it still does.
_STOPPING: Final = "ServiceUnavailableException"


def is_absence(error: CliError) -> bool:
    """Tell whether an error may be over once the control plane is back."""
    return error.code == _STOPPING or (isinstance(error, CannotConnect) and not error.code)


class Absence:
    """Paces the attempts to go on."""

    def __init__(self) -> None:
        self._pauses = 0

    def wait(self, *, anew: bool) -> None:
        """Wait before the next attempt. `anew`: it had been there since the last one."""
        if anew or not self._pauses:
            self._pauses = 0
            say("homeport: the control plane is away; this goes on once it is back (Ctrl-C ends it)")
        time.sleep(_PAUSES_S[min(self._pauses, len(_PAUSES_S) - 1)])
        self._pauses += 1
