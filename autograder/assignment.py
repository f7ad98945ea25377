"""An assignment as the grader knows it: its level, its exercises, and the notebook that learners got."""

from dataclasses import dataclass
from functools import cached_property

from nbformat import NotebookNode

from autograder.exercise import Exercise
from autograder.exercises import load
from autograder.levels import Level, find_level
from autograder.release import release_notebook


@dataclass(frozen=True)
class Assignment:
    """What a submission is graded against. Nothing of it comes from a learner."""

    level: Level
    exercises: tuple[Exercise, ...]
    notebook: NotebookNode

    @property
    def name(self) -> str:
        """Such as ``level2_attention``."""
        return self.level.assignment

    @cached_property
    def cells(self) -> dict[str, NotebookNode]:
        """The cells of the release that nbgrader knows, by ``grade_id``."""
        return {
            cell.metadata.nbgrader.grade_id: cell
            for cell in self.notebook.cells
            if "nbgrader" in cell.metadata
        }


def load_assignment(name: str) -> Assignment:
    """Return the assignment of the level whose stem or assignment is ``name``.

    Raises ValueError if there is no such level, or if its exercises are not written yet.
    """
    level = find_level(name)
    return Assignment(level, load(level.stem), release_notebook(level))
