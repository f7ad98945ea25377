"""How a check calls an answer, be it in the learner's own kernel or in a sandbox that nobody trusts."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from torch import Tensor


class Status(StrEnum):
    """What became of a call, a group of checks or an exercise."""

    PASS = "pass"
    WRONG = "wrong"
    MISSING = "missing"  # not written yet, or not defined
    TIMEOUT = "timeout"
    CRASHED = "crashed"  # the process died
    UNREADABLE = "unreadable"  # the submission cannot be read at all


@dataclass(frozen=True)
class Answer:
    """What came back from one call.

    Either ``value`` (tensors, numbers, booleans, strings, None, and tuples or lists of these), or ``error``
    with ``status`` saying what kind of end it was: ``WRONG`` for an exception, with its type and perhaps its
    message after a colon; ``MISSING`` for a stub, with the name of the function that is not written.
    ``changed`` holds the positions of arguments that the call modified in place. ``gradients`` holds, where
    asked for, one tensor or None per argument.
    """

    value: Any = None
    error: str | None = None
    status: Status | None = None
    changed: tuple[int, ...] = ()
    gradients: tuple[Tensor | None, ...] | None = None


class Target(Protocol):
    """An answer that can be called. It never raises for what the learner's code does; it says so in the
    ``Answer``."""

    def call(self, args: tuple, gradients: bool = False) -> Answer:
        """Call the answer with copies of ``args``. With ``gradients``, also differentiate a weighted sum of
        all floating-point outputs, as ``autograder.local`` does."""
        ...
