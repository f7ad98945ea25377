"""What learners get: no line of a solution, and nothing of theirs overwritten."""

import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from autograder.levels import ROOT, find_level
from autograder.release import CODE_STUB, TEXT_STUB, has_work, release, release_notebook, solution_path

LEVEL = find_level("attention")


@pytest.fixture
def folder(tmp_path):
    assert release(LEVEL, tmp_path) is not None
    return tmp_path


def test_nothing_but_the_notebook_and_its_data_is_released(folder):
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"level2_attention/level2_attention.ipynb"}


def test_no_line_of_a_solution_survives(folder):
    released = (folder / "level2_attention" / "level2_attention.ipynb").read_text("utf-8")
    solutions = nbformat.read(solution_path(LEVEL), as_version=4)
    text = "\n".join(cell.source for cell in solutions.cells)
    regions = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", text, flags=re.DOTALL)
    assert len(regions) == 6
    lines = [line.strip() for region in regions for line in region.splitlines() if len(line.strip()) > 8]
    assert [line for line in lines if nbformat.v4.nbjson.json.dumps(line)[1:-1] in released] == []
    assert "model answer" not in released and "SOLUTION" not in released


def test_every_answer_is_a_stub_and_no_cell_has_output(folder):
    notebook = nbformat.read(folder / "level2_attention" / "level2_attention.ipynb", as_version=4)
    answers = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    code = [cell for cell in answers if cell.cell_type == "code"]
    assert len(code) == 6 and all(cell.source.count(CODE_STUB) == 1 for cell in code)
    assert [cell.source for cell in answers if cell.cell_type == "markdown"] == [TEXT_STUB]
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")


def test_answers_in_a_released_notebook_are_kept(folder):
    path = folder / "level2_attention" / "level2_attention.ipynb"
    assert not has_work(path)
    path.write_text(
        path.read_text("utf-8").replace("    raise NotImpl", "    return x or NotImpl", 1), "utf-8"
    )
    mine = path.read_bytes()
    assert release(LEVEL, folder) is None and path.read_bytes() == mine
    assert release(LEVEL, folder, force=True) == path and path.read_bytes() != mine


def test_data_beside_the_solutions_is_released_and_sources_are_not(tmp_path, monkeypatch):
    source = tmp_path / "solutions" / LEVEL.assignment
    shutil.copytree(solution_path(LEVEL).parent, source)
    (source / "words.csv").write_text("i,have,a,dream")
    monkeypatch.setattr("autograder.release.SOLUTIONS", tmp_path / "solutions")
    release(LEVEL, tmp_path / "release")
    names = {path.name for path in (tmp_path / "release" / LEVEL.assignment).iterdir()}
    assert names == {"level2_attention.ipynb", "words.csv"}


def test_nbgrader_makes_the_same_notebook(tmp_path):
    course = tmp_path / "course"
    shutil.copytree(ROOT / "solutions", course / "solutions")
    config = (
        (ROOT / "nbgrader_config.py")
        .read_text("utf-8")
        .replace("Path(__file__)", f"Path({str(course / 'x')!r})")
    )
    (course / "nbgrader_config.py").write_text(config, "utf-8")
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", LEVEL.assignment]
    environment = {"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    subprocess.run(command, cwd=course, env=environment, check=True, capture_output=True)
    made = course / "release" / LEVEL.assignment
    assert [path.name for path in made.iterdir()] == ["level2_attention.ipynb"]
    theirs, ours = nbformat.read(made / "level2_attention.ipynb", as_version=4), release_notebook(LEVEL)
    assert [cell.source for cell in theirs.cells] == [cell.source for cell in ours.cells]


def test_a_level_without_exercises_says_so():
    with pytest.raises(ValueError, match="no exercises yet"):
        release_notebook(find_level("variants"))
