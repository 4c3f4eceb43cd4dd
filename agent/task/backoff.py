"""How long to wait before a call of the Engine is tried again."""

from typing import Final

from homeport.clock import is_ahead

__all__ = ["delay_s", "is_delayed"]

_FIRST_S: Final = 0.5
_LAST_S: Final = 30.0


def delay_s(tries: int, jitter: float) -> float:
    """Return the delay after the `tries`th failure in a row: doubling, and shortened by up to half.

    `jitter`: random in [0, 1).
    """
    return float(min(_LAST_S, _FIRST_S * 2 ** min(tries, 10)) * (1 - jitter / 2))


def is_delayed(not_before: float, now: float) -> bool:
    """Whether it is too early for another try."""
    return is_ahead(not_before, now, longest_s=_LAST_S)
