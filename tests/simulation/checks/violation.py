"""What a check raises."""

__all__ = ["Violation"]


class Violation(AssertionError):
    """Something that must always hold did not. `invariant` names it, in a word or two; `text` says what was seen."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant
        self.text = text
