"""Make the notebooks that learners get: the solutions, with every answer taken out.

The steps are nbgrader's own, so ``nbgrader generate_assignment`` makes the same notebook.
"""

import shutil
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.preprocessors import CheckCellMetadata, ClearOutput, ClearSolutions, ComputeChecksums, LockCells
from nbgrader.utils import compute_checksum, is_solution

from autograder.levels import ROOT, Level

CODE_STUB = 'raise NotImplementedError("not written yet")  # replace this line with your code'
TEXT_STUB = "*Write your answer here.*"
SOLUTIONS = ROOT / "solutions"


def solution_path(level: Level) -> Path:
    """Return where the notebook with the solutions of ``level`` is."""
    return SOLUTIONS / level.assignment / f"{level.assignment}.ipynb"


def release_notebook(level: Level) -> NotebookNode:
    """Return the learners' notebook of ``level``. Raises ValueError if the level has no solutions yet."""
    path = solution_path(level)
    if not path.is_file():
        raise ValueError(f"level {level.number} has no exercises yet: there is no {path.relative_to(ROOT)}")
    notebook = nbformat.read(path, as_version=4)
    steps = (
        LockCells(),
        ClearSolutions(code_stub={"python": CODE_STUB}, text_stub=TEXT_STUB),
        ClearOutput(),
        ComputeChecksums(),
        CheckCellMetadata(),
    )
    for step in steps:
        notebook, _ = step.preprocess(notebook, {})
    return notebook


def has_work(path: Path) -> bool:
    """Whether somebody has written answers into the released notebook at ``path``."""
    notebook = nbformat.read(path, as_version=4)
    answers = [cell for cell in notebook.cells if is_solution(cell)]
    return any(cell.metadata.nbgrader.get("checksum") != compute_checksum(cell) for cell in answers)


def release(level: Level, folder: Path, force: bool = False) -> Path | None:
    """Write the learners' notebook of ``level`` and the data it needs to ``folder``; return where it is.

    A notebook that somebody has worked in stays as it is, and None is returned, unless ``force``.
    """
    target = folder / level.assignment / f"{level.assignment}.ipynb"
    notebook = release_notebook(level)
    if target.exists() and not force and has_work(target):
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)
    for path in sorted(solution_path(level).parent.iterdir()):
        # The .py beside the notebook is its source, with the solutions in it.
        if path.is_file() and path.suffix not in (".py", ".ipynb") and not path.name.startswith("."):
            shutil.copyfile(path, target.parent / path.name)
    return target
