"""What an exercise is: a reference, generators of inputs, and a catalogue of mistakes.

The learner's check, the grading, the diagnosis and the test of the grader itself all follow from these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Program = Callable[..., Any]
Inputs = Callable[[torch.Generator], tuple]


@dataclass(frozen=True)
class Mistake:
    """A wrong program that students really write, and the sentence that helps whoever wrote it.

    ``program`` takes what the reference takes. A wrong answer that agrees with it on every probe gets
    ``hint``.
    """

    name: str
    program: Program
    hint: str


@dataclass(frozen=True)
class Group:
    """One thing an answer must get right, worth ``points`` of its own.

    ``inputs`` draws one tuple of arguments (float64 tensors unless the dtype is the point) of varied shapes
    from a generator.
    With ``gradients=True`` the gradients with respect to the floating-point arguments are compared too.
    """

    name: str
    points: int
    inputs: Inputs
    gradients: bool = False


@dataclass(frozen=True)
class Property:
    """Something true of every right answer, said when an answer breaks it and no mistake of the catalogue is
    recognised.

    ``holds`` takes the answer and then the arguments.
    """

    sentence: str
    holds: Callable[..., bool]


@dataclass(frozen=True)
class Exercise:
    """One function a learner writes. ``needs`` names earlier exercises of the level that the answer may
    call."""

    name: str
    level: str
    title: str
    minutes: int
    difficulty: int
    reference: Program
    groups: tuple[Group, ...]
    mistakes: tuple[Mistake, ...]
    properties: tuple[Property, ...] = ()
    needs: tuple[str, ...] = ()
    tolerance: float = 1e-8

    @property
    def points(self) -> int:
        """The marks this exercise is worth: the sum over its groups."""
        return sum(group.points for group in self.groups)
