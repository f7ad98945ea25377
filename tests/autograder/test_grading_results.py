"""Where the marks go: the gradebook, the feedback page and the graded copy."""

import shutil

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.plugins.export import CsvExportPlugin

from autograder.autograded import graded_notebook
from autograder.feedback import feedback_page
from autograder.gradebook import open_gradebook, read_timestamp, save
from autograder.grading import grade_submission, unreadable
from autograder.verdict import Verdict
from tests.autograder.submissions import SHORT, answered


@pytest.fixture(scope="module")
def empty_gradebook(assignment, tmp_path_factory):
    path = tmp_path_factory.mktemp("gradebook") / "gradebook.db"
    with open_gradebook(f"sqlite:///{path}", assignment):
        return path


@pytest.fixture
def url(empty_gradebook, tmp_path):
    shutil.copyfile(empty_gradebook, tmp_path / "gradebook.db")
    return f"sqlite:///{tmp_path / 'gradebook.db'}"


def test_marks_are_in_the_gradebook(assignment, graded, url):
    with open_gradebook(url, assignment) as gradebook:
        for one in graded.values():
            save(gradebook, assignment, one)
    with Gradebook(url) as gradebook:
        scores = {s.student.id: s.score for s in gradebook.assignment_submissions(assignment.name)}
        assert scores == {learner: one.points for learner, one in graded.items()}
        assert gradebook.find_assignment(assignment.name).max_score == 45
        comment = gradebook.find_comment("softmax", assignment.name, assignment.name, "sample-partly-right")
        assert comment.comment == graded["sample-partly-right"].records[0].diagnosis


def test_only_a_written_answer_waits_for_a_person(assignment, graded, url):
    with open_gradebook(url, assignment) as gradebook:
        for one in graded.values():
            save(gradebook, assignment, one)
        waiting = {
            s.student.id for s in gradebook.assignment_submissions(assignment.name) if s.needs_manual_grade
        }
    assert waiting == set(graded) - {"sample-empty"}


def test_a_manual_mark_survives_grading_again(assignment, graded, url):
    one = graded["sample-right"]
    with open_gradebook(url, assignment) as gradebook:
        save(gradebook, assignment, one)
        where = (assignment.name, assignment.name, "sample-right")
        grade = gradebook.find_grade("written", *where)
        grade.manual_score, grade.needs_manual_grade = 5.0, False
        gradebook.find_comment("written", *where).manual_comment = "Clear."
        gradebook.db.commit()
        save(gradebook, assignment, one)
        again = gradebook.find_grade("written", *where)
        assert (again.score, again.needs_manual_grade) == (5.0, False)
        assert gradebook.find_comment("written", *where).comment == "Clear."
        assert gradebook.find_submission(assignment.name, "sample-right").score == one.points + 5


def test_a_submission_is_saved_as_a_whole_or_not_at_all(assignment, graded, url, monkeypatch):
    with open_gradebook(url, assignment) as gradebook:
        monkeypatch.setattr("autograder.gradebook._comment", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save(gradebook, assignment, graded["sample-right"])
        assert gradebook.assignment_submissions(assignment.name) == []
        assert gradebook.students == []


def test_nbgrader_exports_the_marks(assignment, graded, url, tmp_path):
    with open_gradebook(url, assignment) as gradebook:
        save(gradebook, assignment, graded["sample-right"])
        CsvExportPlugin(to=str(tmp_path / "marks.csv")).export(gradebook)
    header, row = (tmp_path / "marks.csv").read_text().splitlines()
    marks = dict(zip(header.split(","), row.split(","), strict=True))
    assert (marks["student_id"], marks["score"], marks["max_score"]) == ("sample-right", "39.0", "45.0")


def test_the_time_of_handing_in_is_kept(tmp_path, assignment, graded, url):
    (tmp_path / "timestamp.txt").write_text("2026-03-01 12:00:00 UTC")
    with open_gradebook(url, assignment) as gradebook:
        save(gradebook, assignment, graded["sample-right"], read_timestamp(tmp_path))
        assert (
            str(gradebook.find_submission(assignment.name, "sample-right").timestamp) == "2026-03-01 12:00:00"
        )
    (tmp_path / "timestamp.txt").write_text("yesterday, I think")
    assert read_timestamp(tmp_path) is None


def test_feedback_shows_hint_points_and_own_code(graded, assignment):
    page = feedback_page(graded["sample-partly-right"], assignment)
    assert "exp(1000) is infinite" in page
    assert "5 of 7 points" in page
    assert "logsumexp" not in page  # that is another learner's
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_feedback_shows_no_input_of_grading_and_no_reference(graded, assignment):
    for one in graded.values():
        page = feedback_page(one, assignment)
        assert "expected tensor" not in page and "BEGIN SOLUTION" not in page
        assert all(group.example == "" for verdict in one.verdicts for group in verdict.groups)
    page = feedback_page(graded["sample-empty"], assignment)
    assert "amax" not in page and "masked_fill" not in page


def test_feedback_escapes_what_a_learner_wrote(assignment, sandbox):
    attack = "<script>alert(1)</script>"
    data = answered(assignment, softmax=f"print('{attack}')\n# {attack}", written=attack)
    graded = grade_submission(data, f"somebody {attack}", assignment, sandbox, 0, SHORT)
    page = feedback_page(graded, assignment)
    assert "<script" not in page and "&lt;script&gt;" in page


def test_a_submission_that_cannot_be_read_has_a_page_that_says_why(assignment):
    assert "cut in half" in feedback_page(unreadable("somebody", assignment, "cut in half"), assignment)


def test_the_graded_copy_is_a_valid_notebook_with_every_cell_of_the_release(graded, assignment):
    for one in graded.values():
        copy = graded_notebook(one, assignment)
        nbformat.validate(copy)
        names = [cell.metadata.nbgrader.grade_id for cell in copy.cells if "nbgrader" in cell.metadata]
        assert sorted(names) == sorted(assignment.cells)
        checks = {cell.source for cell in copy.cells if cell.metadata.get("nbgrader", {}).get("locked")}
        assert checks == {cell.source for cell in assignment.cells.values() if cell.metadata.nbgrader.locked}


def test_no_verdict_is_lost_between_record_and_page(graded):
    for one in graded.values():
        verdicts: tuple[Verdict, ...] = one.verdicts
        assert [v.earned for v in verdicts] == ([] if one.problem else [r.points for r in one.records])
