"""Test the grader itself: does every exercise of a level tell right from wrong, and wrong from wrong?"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

from autograder.check import ROUNDS
from autograder.examine import examine
from autograder.exercise import Exercise
from autograder.exercises import load
from autograder.levels import ROOT, find_level
from autograder.local import LocalTarget
from autograder.probe import draw
from autograder.target import Status

FEWEST_MISTAKES = 5
LONGEST_CHECK = 1.0  # seconds
SEEDS = range(2)


@dataclass(frozen=True)
class Row:
    """What was found about one exercise. ``seconds`` is the slowest check of a right or a wrong answer."""

    name: str
    points: int
    groups: int
    mistakes: int
    seconds: float
    problems: tuple[str, ...]


def validate(stem: str) -> tuple[list[Row], list[str]]:
    """Return a row for each exercise of the level ``stem``, and the problems of the level, of which there
    should be none."""
    rows = [_row(exercise) for exercise in load(stem)]
    problems = [f"{row.name}: {problem}" for row in rows for problem in row.problems]
    return rows, problems + list(_notebook_problems(stem))


def _row(exercise: Exercise) -> Row:
    seconds = max(_seconds(exercise, program) for program in _programs(exercise))
    problems = tuple(_problems(exercise))
    if seconds > LONGEST_CHECK:
        problems += (f"a check takes {seconds:.1f} s, more than {LONGEST_CHECK:.0f} s",)
    counts = len(exercise.groups), len(exercise.mistakes)
    return Row(exercise.name, exercise.points, *counts, seconds, problems)


def _programs(exercise: Exercise) -> list:
    return [exercise.reference, *(mistake.program for mistake in exercise.mistakes)]


def _seconds(exercise: Exercise, program) -> float:
    start = time.perf_counter()
    examine(exercise, LocalTarget(program), 0, ROUNDS)
    return time.perf_counter() - start


def _stub(*args):
    raise NotImplementedError("not written yet")


def _problems(exercise: Exercise) -> Iterator[str]:
    if len(exercise.mistakes) < FEWEST_MISTAKES:
        yield f"expected {FEWEST_MISTAKES} mistakes or more, got {len(exercise.mistakes)}"
    if len({mistake.name for mistake in exercise.mistakes}) < len(exercise.mistakes):
        yield "two mistakes have one name"
    for seed in SEEDS:
        if examine(exercise, LocalTarget(_stub), seed, ROUNDS).status is not Status.MISSING:
            yield "the empty stub does not count as missing"
        verdict = examine(exercise, LocalTarget(exercise.reference), seed, ROUNDS)
        if verdict.status is not Status.PASS:
            yield f"the reference fails: {[group.message for group in verdict.groups if group.message]}"
        yield from _broken_properties(exercise, seed)
        yield from _unrecognised(exercise, seed)


def _broken_properties(exercise: Exercise, seed: int) -> Iterator[str]:
    for rule in exercise.properties:
        for group in exercise.groups:
            args = draw(group, seed, 0)
            if not rule.holds(LocalTarget(exercise.reference).call(args).value, *args):
                yield f"not true of the reference in {group.name!r}: {rule.sentence}"


def _unrecognised(exercise: Exercise, seed: int) -> Iterator[str]:
    for mistake in exercise.mistakes:
        verdict = examine(exercise, LocalTarget(mistake.program), seed, ROUNDS)
        if verdict.status is Status.PASS:
            yield f"the mistake {mistake.name!r} passes"
        elif verdict.mistake != mistake.name:
            yield f"the mistake {mistake.name!r} is taken for {verdict.mistake or 'none'!r}"


def _notebook_problems(stem: str) -> Iterator[str]:
    """Compare the cells of the solution notebook with the exercises."""
    assignment = find_level(stem).assignment
    path = ROOT / "solutions" / assignment / f"{assignment}.ipynb"
    if not path.exists():
        yield f"there is no {path.relative_to(ROOT)}"
        return
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    marked = [cell["metadata"]["nbgrader"] for cell in cells if "nbgrader" in cell["metadata"]]
    graded = {cell["grade_id"]: cell for cell in marked}
    if len(graded) < len(marked):
        yield "two cells of the notebook have one grade_id"
    expected = {f"check_{exercise.name}": exercise.points for exercise in load(stem)}
    for name, points in expected.items():
        cell = graded.get(name, {})
        if not (cell.get("locked") and cell.get("grade") and cell.get("points") == points):
            yield f"expected a locked cell {name!r} worth {points} points, got {cell or 'none'}"
        if not graded.get(name.removeprefix("check_"), {}).get("solution"):
            yield f"expected a solution cell {name.removeprefix('check_')!r}"
    if not graded.get("written", {}).get("points"):
        yield "expected a written question 'written' with points"
    for exercise in load(stem):
        said = f"{'★' * exercise.difficulty} ({exercise.minutes} minutes, {exercise.points} points)"
        if not any(cell["cell_type"] == "markdown" and said in "".join(cell["source"]) for cell in cells):
            yield f"{exercise.name}: expected a heading with {said!r}"
    for name in sorted(name for name in graded if name.startswith("check_") and name not in expected):
        yield f"the cell {name!r} checks no exercise of the level"
