"""Submissions for the tests of grading."""

import nbformat

from autograder.assignment import Assignment
from autograder.levels import ROOT
from autograder.session import Limits

SAMPLES = ROOT / "samples" / "level2_attention"
SHORT = Limits(cell=1.5, call=1.5, submission=30)


def answered(assignment: Assignment, **answers: str) -> bytes:
    """The release with these answers in it."""
    made = nbformat.from_dict(assignment.notebook)
    for cell in made.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(name, cell.source)
    return nbformat.writes(made).encode()
