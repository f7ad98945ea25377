"""``check``, ``done`` and ``progress``: what a learner calls in a notebook."""

import contextlib
import io
import textwrap
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from autograder.examine import examine
from autograder.exercises import find, load, stems
from autograder.levels import find_level
from autograder.local import LocalTarget
from autograder.target import Status
from autograder.verdict import GroupResult, Verdict

__all__ = ["CheckFailed", "check", "done", "examine", "progress", "render"]

ROUNDS = 6
MARKS = {Status.PASS: "✓", Status.MISSING: "·"}
_checked: dict[str, Verdict] = {}


class CheckFailed(AssertionError):
    """An answer did not pass. The verdict is printed already, so a notebook shows one line, no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def check(name: str, answer: Callable[..., Any]) -> None:
    """Check your ``answer`` to the exercise ``name`` and print what passed, what did not, and a hint.

    The same inputs are drawn every time, so the same answer gives the same verdict.
    Raises CheckFailed if anything is missing or wrong, ValueError for a name that is no exercise or an
    ``answer`` that is no function.
    """
    exercise = find(name)
    if not callable(answer):
        raise ValueError(
            f"expected your function, as in check({name!r}, {name}), got {type(answer).__name__}"
        )
    with _quiet():
        verdict = examine(exercise, LocalTarget(answer), seed=zlib.crc32(name.encode()), rounds=ROUNDS)
    _checked[name] = verdict
    print(render(verdict))
    wrong = [need for need in exercise.needs if need in _checked and _checked[need].status is Status.WRONG]
    if wrong and verdict.status is Status.WRONG:
        print(f"  Not right yet either: {', '.join(wrong)}. If this answer calls it, mend that first.")
    if _unwritten(verdict):
        raise CheckFailed(f"{name} is not written yet.")
    if verdict.status is not Status.PASS:
        raise CheckFailed(f"{name} is not right yet: {verdict.earned} of {verdict.points} points.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the answer prints and warns of: a check calls it dozens of times."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _unwritten(verdict: Verdict) -> bool:
    return all(group.status is Status.MISSING for group in verdict.groups)


def render(verdict: Verdict) -> str:
    """Return a verdict as the text that ``check`` prints: one line a group, one example, one hint."""
    if _unwritten(verdict):
        hint = verdict.diagnosis or "Put your code in place of the line `raise NotImplementedError(...)`."
        return f"{verdict.exercise}: not written yet\n  {hint}"
    lines = [f"{verdict.exercise}: {verdict.earned} of {verdict.points} points"]
    width = max(len(group.name) for group in verdict.groups)
    shown = next((group for group in verdict.groups if group.example), None)
    for group in verdict.groups:
        lines += _render_group(group, width, in_full=group is shown)
    if verdict.diagnosis:
        lines.append(
            textwrap.fill(f"Hint: {verdict.diagnosis}", 92, initial_indent="  ", subsequent_indent="  ")
        )
    return "\n".join(lines)


def _render_group(group: GroupResult, width: int, in_full: bool) -> list[str]:
    line = f"  {MARKS.get(group.status, '✗')} {group.name:<{width}}  {group.earned}/{group.points}"
    if group.status is Status.MISSING:
        return [f"{line}  {group.message}"]
    details = (
        [*group.message.split("\n"), *group.example.split("\n")]
        if in_full
        else [group.message.split("\n")[0]]
    )
    return [line, *(f"      {detail}" for detail in details if detail)]


def done(*names: str) -> bool:
    """Return whether every exercise named has passed its check in this kernel; if not, say what is missing.

    A cell that uses your functions asks this first, so that a notebook can be run from top to bottom at any
    stage of your work.
    """
    passed = {name for name, verdict in _checked.items() if verdict.status is Status.PASS}
    missing = [name for name in names if name not in passed]
    if missing:
        print(f"This cell waits until you have passed: {', '.join(missing)}.")
    return not missing


def progress(level: str | None = None) -> None:
    """Print the exercises of a level and what your answers to them earned so far in this kernel.

    ``level`` is its stem, such as "attention"; without it, the level you checked last is shown.
    """
    if level is None:
        level = find(next(reversed(_checked))).level if _checked else stems()[0]
    exercises = load(level)
    width = max(len(exercise.name) for exercise in exercises)
    earned = 0
    print(f"Level {find_level(level).number}: {find_level(level).title}")
    for exercise in exercises:
        verdict = _checked.get(exercise.name)
        mark, points = ("·", 0) if verdict is None else (MARKS.get(verdict.status, "✗"), verdict.earned)
        note = "not tried" if verdict is None else "not written yet" if mark == "·" else ""
        earned += points
        print(f"  {mark} {exercise.name:<{width}}  {points:>2}/{exercise.points:<2} {note}".rstrip())
    print(f"  {earned} of {sum(exercise.points for exercise in exercises)} points")
