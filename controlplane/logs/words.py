"""Sizes and times as users are told them. Pure."""

from homeport.clock import iso_time

__all__ = ["size_in_words", "time_in_words"]


def size_in_words(size: int) -> str:
    """Return a number of bytes for people."""
    amount = float(size)
    for unit in ("bytes", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def time_in_words(at: int) -> str:
    """Return a time, epoch milliseconds, for people; clients may send such as no calendar has."""
    try:
        return iso_time(at / 1000, millis=True)
    except (ValueError, OverflowError, OSError):
        return f"{at} ms"
