"""The graded copy of a submission that formgrader shows: the learner's cells and what came of them."""

from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from autograder.assignment import Assignment
from autograder.check import render
from autograder.grading import Graded
from autograder.session import Outcome
from autograder.submission import Cell
from autograder.target import Status

NEW_CELL = {"code": new_code_cell, "markdown": new_markdown_cell}
ENDED = {
    Status.TIMEOUT: "This cell took too long and was stopped.",
    Status.CRASHED: "This cell ended Python.",
}


def graded_notebook(graded: Graded, assignment: Assignment) -> NotebookNode:
    """Return the submission as a notebook with outputs: text only, and the release's own check cells."""
    cells = [
        _cell(cell, graded.outcomes.get(number, Outcome()), f"cell-{number}")
        for number, cell in enumerate(graded.submission.cells)
        if not cell.locked
    ]
    seen: set[str] = set()
    for cell, written in zip(cells, (c for c in graded.submission.cells if not c.locked), strict=True):
        release = assignment.cells.get(written.grade_id)
        if release is not None and written.grade_id not in seen and release.cell_type == cell.cell_type:
            cell.metadata["nbgrader"] = release.metadata.nbgrader
            seen.add(written.grade_id)
    missing = [name for name in assignment.cells if name not in seen]
    placed = list(_with_checks(cells, missing, graded, assignment))
    return new_notebook(cells=placed, metadata=assignment.notebook.metadata)


def write_graded(graded: Graded, assignment: Assignment, folder: Path) -> Path:
    """Write the graded copy to ``folder``/LEARNER/ASSIGNMENT/ASSIGNMENT.ipynb and return where it is."""
    path = folder / graded.learner / assignment.name / f"{assignment.name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(graded_notebook(graded, assignment), path)
    return path


def _cell(cell: Cell, outcome: Outcome, name: str) -> NotebookNode:
    made = NEW_CELL.get(cell.kind, new_raw_cell)(cell.source, id=name)
    text = outcome.output or ENDED.get(outcome.ending, "")
    if cell.kind == "code" and text:
        made.outputs = [new_output("stream", name="stdout", text=text)]
    return made


def _with_checks(
    cells: list[NotebookNode], missing: list[str], graded: Graded, assignment: Assignment
) -> Iterator[NotebookNode]:
    """Put each check behind the cell it checks, and what is missing at the end."""
    for cell in cells:
        yield cell
        check = f"check_{cell.metadata.get('nbgrader', {}).get('grade_id')}"
        if check in missing:
            missing.remove(check)
            yield _from_release(check, graded, assignment)
    for name in missing:
        yield _from_release(name, graded, assignment)


def _from_release(name: str, graded: Graded, assignment: Assignment) -> NotebookNode:
    cell = nbformat.from_dict(assignment.cells[name])
    verdict = next((v for v in graded.verdicts if name == f"check_{v.exercise}"), None)
    if verdict is not None and cell.cell_type == "code":
        cell.outputs = [new_output("stream", name="stdout", text=render(verdict))]
    return cell
