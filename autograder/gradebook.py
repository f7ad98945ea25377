"""Write marks into nbgrader's own gradebook, so that formgrader and ``nbgrader export`` show them.

Manual marks are left alone: what a person wrote survives grading again.
"""

import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbgrader.api import (
    Comment,
    Grade,
    Gradebook,
    MissingEntry,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
)
from nbgrader.utils import is_grade, is_locked, is_solution, parse_utc

from autograder.assignment import Assignment
from autograder.grading import Graded


@contextmanager
def open_gradebook(url: str, assignment: Assignment) -> Iterator[Gradebook]:
    """Open the gradebook at an SQLAlchemy ``url``, with ``assignment`` and its cells in it.

    Raises nbgrader's InvalidEntry if the gradebook holds a different course under the same names.
    """
    scripts = sysconfig.get_path("scripts")
    if scripts not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = f"{scripts}{os.pathsep}{os.environ['PATH']}"  # nbgrader calls alembic by name
    with Gradebook(url) as gradebook:
        _declare(gradebook, assignment)
        yield gradebook


def _declare(gradebook: Gradebook, assignment: Assignment) -> None:
    name = assignment.name
    gradebook.update_or_create_assignment(name)
    gradebook.update_or_create_notebook(name, name)
    for grade_id, cell in assignment.cells.items():
        gradebook.update_or_create_source_cell(
            grade_id,
            name,
            name,
            cell_type=cell.cell_type,
            locked=is_locked(cell),
            source=cell.source,
            checksum=cell.metadata.nbgrader.get("checksum"),
        )
        if is_grade(cell):
            points = float(cell.metadata.nbgrader.points)
            gradebook.update_or_create_grade_cell(
                grade_id, name, name, max_score=points, cell_type=cell.cell_type
            )
        if is_solution(cell):
            gradebook.update_or_create_solution_cell(grade_id, name, name)


def save(gradebook: Gradebook, assignment: Assignment, graded: Graded, timestamp: str | None = None) -> None:
    """Write the marks of one submission, all of them or none.

    ``timestamp`` says when it was handed in, for nbgrader's late penalties.
    """
    try:
        submission = _find_or_add(gradebook, assignment.name, graded.learner)
        submission.timestamp = parse_utc(timestamp) if timestamp else submission.timestamp
        for notebook in submission.notebooks:
            for grade in notebook.grades:
                _mark(grade, assignment, graded)
            for comment in notebook.comments:
                _comment(comment, assignment, graded)
        gradebook.db.commit()
    except BaseException:
        gradebook.db.rollback()
        raise


def read_timestamp(folder: Path) -> str | None:
    """Return when a submission was handed in, from the ``timestamp.txt`` that nbgrader leaves beside it."""
    path = folder / "timestamp.txt"
    if not path.is_file() or path.is_symlink() or path.stat().st_size > 100:
        return None
    text = path.read_text("utf-8", "replace").strip()
    try:
        parse_utc(text)
    except ValueError:
        return None
    return text


def _find_or_add(gradebook: Gradebook, assignment: str, learner: str) -> SubmittedAssignment:
    """Return the submission of ``learner``, with a grade and a comment for each cell, not committed.

    Gradebook.add_submission commits, and knows nothing of cells that the assignment gained since.
    """
    try:
        submission = gradebook.find_submission(assignment, learner)
    except MissingEntry:
        student = gradebook.db.get(Student, learner) or Student(id=learner)
        submission = SubmittedAssignment(assignment=gradebook.find_assignment(assignment), student=student)
        gradebook.db.add(submission)
    with gradebook.db.no_autoflush:
        present = {copy.notebook: copy for copy in submission.notebooks}
        for notebook in submission.assignment.notebooks:
            copy = present.get(notebook) or SubmittedNotebook(notebook=notebook, assignment=submission)
            gradebook.db.add(copy)
            graded = {grade.cell_id for grade in copy.grades}
            commented = {comment.cell_id for comment in copy.comments}
            for cell in notebook.grade_cells:
                if cell.id not in graded:
                    gradebook.db.add(Grade(cell_id=cell.id, notebook=copy))
            for cell in notebook.solution_cells:
                if cell.id not in commented:
                    gradebook.db.add(Comment(cell_id=cell.id, notebook=copy))
    gradebook.db.flush()
    return submission


def _mark(grade: Grade, assignment: Assignment, graded: Graded) -> None:
    records = {f"check_{record.exercise}": record for record in graded.records}
    if grade.name in records:
        grade.auto_score = float(records[grade.name].points)
        grade.needs_manual_grade = graded.needs_a_person
    else:
        grade.auto_score = 0.0 if _is_empty(grade.name, assignment, graded) else None
        grade.needs_manual_grade = grade.auto_score is None and grade.manual_score is None


def _comment(comment: Comment, assignment: Assignment, graded: Graded) -> None:
    verdicts = {verdict.exercise: verdict for verdict in graded.verdicts}
    if graded.problem:
        comment.auto_comment = f"This submission could not be read: {graded.problem}"
    elif comment.name in verdicts:
        comment.auto_comment = verdicts[comment.name].diagnosis or None
    else:
        comment.auto_comment = "No response." if _is_empty(comment.name, assignment, graded) else None


def _is_empty(grade_id: str, assignment: Assignment, graded: Graded) -> bool:
    """Whether a written answer is still as it was handed out, or gone."""
    written = graded.submission.source(grade_id).strip()
    return not graded.problem and written in ("", assignment.cells[grade_id].source.strip())
