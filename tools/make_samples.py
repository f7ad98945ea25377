"""Make the sample submissions in samples/ from the release notebook and the solutions.

    python tools/make_samples.py

Each sample is one kind of notebook that a grader meets. The same release gives the same bytes.
"""

import json
import re
import shutil
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder.levels import ROOT, find_level
from autograder.release import release_notebook, solution_path

LEVEL = find_level("attention")
SAMPLES = ROOT / "samples" / LEVEL.assignment
ANSWERS = Path(__file__).parent / "sample_answers"
WRITTEN = (
    "Nothing explodes. A score is a sum of d products, so scores spread like √d. Softmax of scores that far "
    "apart picks one key, and then almost no gradient comes back. √d brings the spread to 1; d is too much."
)


def main() -> None:
    shutil.rmtree(SAMPLES, ignore_errors=True)
    for make in (right, another_way, partly_right, empty, loop, crash, corrupt, cheating, real_life):
        name = f"sample-{make.__name__.replace('_', '-')}"
        path = SAMPLES / name / LEVEL.assignment / f"{LEVEL.assignment}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(make(), "utf-8")
        print(path.relative_to(ROOT))


def right() -> str:
    return nbformat.writes(_answered(_solutions()))


def another_way() -> str:
    """Other formulas, and NumPy where no gradient is asked for."""
    return nbformat.writes(_answered(_read("another_way.py")))


def partly_right() -> str:
    """Three mistakes of the catalogue, and one exercise not written."""
    return nbformat.writes(_answered(_read("partly_right.py")))


def empty() -> str:
    return nbformat.writes(release_notebook(LEVEL))


def loop() -> str:
    """A function that never comes back, and a cell that never ends; the rest is right."""
    return nbformat.writes(_answered({**_read("another_way.py"), **_read("loop.py")}))


def crash() -> str:
    """A function and a cell that end Python; the rest is right."""
    notebook = _answered({**_read("another_way.py"), **_read("crash.py")})
    _insert_before(
        notebook, "nadaraya_watson", "import os\n\nos._exit(1)  # start again with an empty memory"
    )
    return nbformat.writes(notebook)


def corrupt() -> str:
    """The first half of a good notebook: saving was interrupted."""
    text = right()
    return text[: len(text) // 2]


def cheating() -> str:
    """One trick for each exercise, and a check that always says yes."""
    notebook = _answered(_read("cheating.py"))
    for cell in notebook.cells:
        if cell.source.startswith("check("):
            cell.source = 'print("everything is right, 39 of 39 points")'
    return nbformat.writes(notebook)


def real_life() -> str:
    """Right answers amid what real notebooks hold: magics, plots, cells out of order, old format, CRLF."""
    notebook = _answered(_read("real_life.py"))
    _insert_before(notebook, "softmax", "%pip install numpy\n!ls -l\n%matplotlib inline")
    _insert_before(notebook, "softmax", "this cell is a note to myself, not Python")
    _insert_before(
        notebook,
        "scores",
        "import matplotlib.pyplot as plt\n\nplt.plot(softmax(torch.arange(5.0), 0))\nplt.show()",
    )
    _insert_before(notebook, "written", "def shifted(x, dim):\n    return x - x.amax(dim, keepdim=True)")
    for cell in notebook.cells:
        del cell["id"]
    notebook.nbformat_minor = 4
    plain = json.loads(nbformat.writes(notebook))
    for cell in plain["cells"]:
        cell["source"] = "".join(cell["source"]).replace("\n", "\r\n")
    return json.dumps(plain)


def _solutions() -> dict[str, str]:
    """Return the text of each solution cell, without the marks around the solution."""
    notebook = nbformat.read(solution_path(LEVEL), as_version=4)
    cells = (cell for cell in notebook.cells if cell.cell_type == "code" and _is_answer(cell))
    return {
        cell.metadata.nbgrader.grade_id: re.sub(r"\n *### (BEGIN|END) SOLUTION", "", cell.source)
        for cell in cells
    }


def _read(name: str) -> dict[str, str]:
    """Return the parts of a file of answers: each begins with a line ``# %% EXERCISE``."""
    parts = re.split(r"^# %% (\w+)\n", (ANSWERS / name).read_text("utf-8"), flags=re.MULTILINE)
    return {name: code.strip() for name, code in zip(parts[1::2], parts[2::2], strict=True)}


def _is_answer(cell: NotebookNode) -> bool:
    return cell.metadata.get("nbgrader", {}).get("solution", False)


def _answered(answers: dict[str, str]) -> NotebookNode:
    """Return the release with ``answers`` in it, and the written one."""
    notebook = release_notebook(LEVEL)
    for cell in filter(_is_answer, notebook.cells):
        name = cell.metadata.nbgrader.grade_id
        cell.source = WRITTEN if name == "written" else answers.get(name, cell.source)
    return notebook


def _insert_before(notebook: NotebookNode, grade_id: str, source: str) -> None:
    names = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in notebook.cells]
    new = nbformat.v4.new_code_cell(source, id=f"extra-{len(notebook.cells)}")
    notebook.cells.insert(names.index(grade_id), new)


if __name__ == "__main__":
    main()
