"""Read a submission as data: nothing of it is executed, imported or followed here."""

import json
import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbgrader.utils import is_locked, is_solution

from autograder.assignment import Assignment

MOST_BYTES = 10_000_000
MOST_CELLS = 1_000


class Unreadable(ValueError):
    """A submission that cannot be read. The message tells the learner why."""


@dataclass(frozen=True)
class Cell:
    """One cell of a submission. ``grade_id`` is empty unless the release has a cell of that id.

    ``locked`` cells are the release's own checks; whatever the submission has in their place is not run.
    """

    kind: str
    source: str
    grade_id: str = ""
    locked: bool = False

    @property
    def runs(self) -> bool:
        """Whether the cell is executed."""
        return self.kind == "code" and not self.locked and bool(self.source.strip())


@dataclass(frozen=True)
class Submission:
    """The cells of a submission, and what a person should know about it."""

    cells: tuple[Cell, ...] = ()
    notes: tuple[str, ...] = ()

    def source(self, grade_id: str) -> str:
        """Return what the learner wrote in the cell ``grade_id``."""
        return "\n\n".join(cell.source for cell in self.cells if cell.grade_id == grade_id)


def read_bytes(folder: Path, learner: str, assignment: str) -> bytes:
    """Return the bytes of a learner's notebook in ``folder``. Raises Unreadable unless it is a plain file.

    No link is followed on the way, symbolic or hard, so that a submission cannot name a file of yours.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in (learner, assignment):
            below = os.open(part, flags | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        file = os.open(f"{assignment}.ipynb", flags, dir_fd=at)
    except FileNotFoundError as error:
        raise Unreadable(f"there is no {assignment}.ipynb in the folder") from error
    except OSError as error:
        raise Unreadable(f"not a plain file in a plain folder ({error.strerror})") from error
    finally:
        os.close(at)
    try:
        _expect_plain_file(os.fstat(file))
        with open(file, "rb", closefd=False) as opened:
            data = opened.read(MOST_BYTES + 1)
    finally:
        os.close(file)
    if len(data) > MOST_BYTES:
        raise Unreadable(f"larger than {MOST_BYTES // 1_000_000} MB; clear the outputs and submit again")
    return data


def _expect_plain_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("not a plain file")
    if status.st_nlink > 1:
        raise Unreadable("the file has a second name elsewhere (a hard link)")


def parse(data: bytes, assignment: Assignment) -> Submission:
    """Return the cells of a notebook. Raises Unreadable with the reason if it is none."""
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Unreadable("not a text in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise Unreadable("not a notebook: the file is not valid JSON. Was it saved to the end?") from error
    if not isinstance(notebook, dict) or "nbformat" not in notebook:
        raise Unreadable("not a notebook: the file has no notebook format")
    if notebook["nbformat"] != 4:
        raise Unreadable("an old notebook format; open it in JupyterLab, save it and submit again")
    cells = notebook.get("cells")
    if not isinstance(cells, list) or not cells:
        raise Unreadable("a notebook without cells")
    if len(cells) > MOST_CELLS:
        raise Unreadable(f"more than {MOST_CELLS} cells")
    read = tuple(_cell(number, cell, assignment) for number, cell in enumerate(cells, start=1))
    return Submission(read, tuple(_notes(read, assignment)))


def _cell(number: int, cell: Any, assignment: Assignment) -> Cell:
    source = cell.get("source") if isinstance(cell, dict) else None
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str) or not isinstance(cell.get("cell_type"), str):
        raise Unreadable(f"cell {number} is not a notebook cell")
    metadata = cell.get("metadata")
    marks = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = marks.get("grade_id") if isinstance(marks, dict) else None
    known = assignment.cells.get(grade_id) if isinstance(grade_id, str) else None
    name = grade_id if known is not None else ""
    return Cell(cell["cell_type"], clean(source), name, known is not None and is_locked(known))


def clean(text: str) -> str:
    """Return ``text`` without what no file or database can hold: lone surrogates and null characters."""
    return (
        text.encode("utf-8", "replace")
        .decode()
        .replace("\0", "\N{REPLACEMENT CHARACTER}")
        .replace("\r\n", "\n")
    )


def _notes(cells: tuple[Cell, ...], assignment: Assignment) -> list[str]:
    """Say in what way the notebook is no longer the one that was handed out."""
    counts = Counter(cell.grade_id for cell in cells if cell.grade_id)
    notes = [f"the cell `{name}` is there {count} times" for name, count in counts.items() if count > 1]
    for name, cell in assignment.cells.items():
        kinds = {other.kind for other in cells if other.grade_id == name}
        if not kinds:
            notes.append(f"the cell `{name}` is missing")
        elif kinds != {cell.cell_type}:
            notes.append(f"the cell `{name}` is no longer a {cell.cell_type} cell")
        elif not is_solution(cell) and any(c.source != cell.source for c in cells if c.grade_id == name):
            notes.append(f"the check `{name}` was changed (it was not run)")
    return notes
