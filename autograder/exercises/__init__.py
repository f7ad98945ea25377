"""The exercises as data: one module per level, each with ``EXERCISES`` in the order of the notebook."""

from importlib import import_module
from importlib.util import find_spec

from autograder.exercise import Exercise
from autograder.levels import LEVELS, find_level


def load(stem: str) -> tuple[Exercise, ...]:
    """Return the exercises of the level ``stem`` in order. Raises ValueError if there is no such level.

    >>> load("attention")[0].name
    'softmax'
    """
    return import_module(f"autograder.exercises.{find_level(stem).stem}").EXERCISES


def stems() -> list[str]:
    """Return the levels that have exercises, in order."""
    return [level.stem for level in LEVELS if find_spec(f"autograder.exercises.{level.stem}")]


def find(name: str) -> Exercise:
    """Return the exercise called ``name``. Raises ValueError with the known names if there is none."""
    known = []
    for stem in stems():
        for exercise in load(stem):
            if exercise.name == name:
                return exercise
            known.append(exercise.name)
    raise ValueError(f"expected the name of an exercise, got {name!r}; known: {', '.join(known)}")
