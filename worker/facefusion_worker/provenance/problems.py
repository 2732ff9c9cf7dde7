"""What stands in the way of a mark, in words that a person can act on. Standard library only."""

from __future__ import annotations


class Unfit(Exception):
    """The certificate, its key or this machine: nothing can be signed with it. `fix` says what to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class NotMarked(Exception):
    """One result that could not be marked. `reason` is stable and upper snake case."""

    def __init__(self, reason: str, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable
