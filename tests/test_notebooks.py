"""The notebooks: they are what their sources say, they ran, and what learners get holds no solutions."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.check import examine
from autograder.exercises import load, stems
from autograder.levels import ROOT, find_level
from autograder.local import LocalTarget
from autograder.release import release
from autograder.target import Status
from tools.build_notebooks import read_source, sources, without_outputs

SOURCES = sources()
CHAPTERS = [source for source in SOURCES if source.parent.name == "chapters"]
MACHINE_PATH = re.compile(
    rf"{re.escape(str(ROOT))}|(?<![\w.])/(home|root|Users|tmp|usr|opt|var)/|site-packages|\b[A-Z]:\\"
)
LONGEST_CELL = 12
SHORTEST_ALT = 20


def name(source: Path) -> str:
    return str(source.relative_to(ROOT))


def built(source: Path) -> NotebookNode:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def output_texts(cell: NotebookNode) -> list[str]:
    """Everything a cell shows in words: what it printed, its results as text and HTML, its errors."""
    texts = []
    for output in cell.outputs:
        texts += [output.get("text", ""), *output.get("traceback", [])]
        texts += [data for kind, data in output.get("data", {}).items() if kind.startswith("text/")]
    return texts


def figures(cell: NotebookNode) -> int:
    return sum(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {}))


every_notebook = pytest.mark.parametrize("source", SOURCES, ids=name)
every_chapter = pytest.mark.parametrize("source", CHAPTERS, ids=name)


def test_every_notebook_has_a_source():
    notebooks = [*ROOT.glob("chapters/*.ipynb"), *ROOT.glob("solutions/*/*.ipynb")]
    assert {notebook.with_suffix(".py") for notebook in notebooks} == set(SOURCES)


@every_notebook
def test_notebook_agrees_with_its_source(source):
    assert without_outputs(built(source)) == read_source(source), "run `make notebooks`"


@every_notebook
def test_every_code_cell_was_run_once_in_order(source):
    counts = [cell.execution_count for cell in code_cells(built(source))]
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_no_cell_ends_in_an_error_or_warns(source):
    for cell in code_cells(built(source)):
        assert not any(
            output.output_type == "error" or output.get("name") == "stderr" for output in cell.outputs
        )


@every_notebook
def test_nothing_names_a_folder_of_the_machine_that_built_it(source):
    for cell in built(source).cells:
        shown = output_texts(cell) if cell.cell_type == "code" else []
        for text in [cell.source, *shown]:
            assert not MACHINE_PATH.search(text), MACHINE_PATH.search(text)


@every_notebook
def test_every_figure_says_what_it_shows(source):
    for cell in built(source).cells:
        if cell.cell_type == "markdown":
            alts = re.findall(r"!\[(.*?)\]\(", cell.source)
        elif figures(cell):
            assert figures(cell) == 1, f"one alt text cannot describe two figures: {cell.source}"
            alts = [cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")]
        else:
            alts = []
        assert all(len(alt) >= SHORTEST_ALT for alt in alts), cell.source


def lines_of_code(cell: NotebookNode) -> int:
    """Count the lines of a cell, blank lines and imports aside."""
    lines = cell.source.splitlines()
    for statement in ast.parse(cell.source).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            lines[statement.lineno - 1 : statement.end_lineno] = [""] * (
                statement.end_lineno - statement.lineno + 1
            )
    return sum(bool(line.strip()) for line in lines)


@every_chapter
def test_lecture_cells_are_short(source):
    for cell in code_cells(built(source)):
        assert lines_of_code(cell) <= LONGEST_CELL, cell.source


# What learners get


@pytest.fixture(scope="session")
def released(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    for stem in stems():
        release(find_level(stem), folder)
    return folder


def split_solutions(source: Path) -> tuple[set[str], set[str]]:
    """Return the lines inside the solution regions, and the lines outside them, stripped."""
    inside, outside = set(), set()
    lines = outside
    for line in source.read_text(encoding="utf-8").splitlines():
        if line.strip() == "### BEGIN SOLUTION":
            lines = inside
        elif line.strip() == "### END SOLUTION":
            lines = outside
        else:
            lines.add(line.strip())
    return inside - {""}, outside


def run(notebook: Path) -> dict:
    """Run the cells of ``notebook`` that hold no check, and return what they defined."""
    names: dict = {}
    for cell in code_cells(nbformat.read(notebook, as_version=4)):
        if not cell.metadata.get("nbgrader", {}).get("grade"):
            exec(compile(cell.source, notebook.name, "exec"), names)
    return names


every_level = pytest.mark.parametrize("stem", stems())


@every_level
def test_no_solution_line_is_released(stem, released):
    assignment = find_level(stem).assignment
    inside, outside = split_solutions(ROOT / "solutions" / assignment / f"{assignment}.py")
    assert inside, "the source marks no solutions"
    texts = [path.read_text(encoding="utf-8") for path in released.rglob("*") if path.is_file()]
    survivors = {line for line in inside - outside if any(line in text for text in texts)}
    assert not survivors


def test_release_holds_notebooks_and_nothing_else(released):
    assignments = [find_level(stem).assignment for stem in stems()]
    files = sorted(str(path.relative_to(released)) for path in released.rglob("*") if path.is_file())
    assert files == sorted(f"{assignment}/{assignment}.ipynb" for assignment in assignments)


@every_level
def test_unfilled_release_is_missing_in_every_check(stem, released):
    assignment = find_level(stem).assignment
    names = run(released / assignment / f"{assignment}.ipynb")
    for exercise in load(stem):
        verdict = examine(exercise, LocalTarget(names[exercise.name]), seed=1, rounds=1)
        assert {group.status for group in verdict.groups} == {Status.MISSING}, exercise.name
        assert verdict.earned == 0


@every_level
def test_solutions_earn_full_marks(stem):
    assignment = find_level(stem).assignment
    names = run(ROOT / "solutions" / assignment / f"{assignment}.ipynb")
    for exercise in load(stem):
        verdict = examine(exercise, LocalTarget(names[exercise.name]), seed=1, rounds=4)
        assert verdict.earned == exercise.points, (exercise.name, verdict)
