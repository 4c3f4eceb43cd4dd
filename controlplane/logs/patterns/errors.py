"""What is wrong with a pattern."""

__all__ = ["PatternError"]


class PatternError(ValueError):
    """A filter pattern can't be used; the text says where (counting characters from 1) and why."""
