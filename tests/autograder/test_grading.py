"""What each kind of submission gets."""

import json
import os
from dataclasses import replace
from importlib import import_module

import nbformat
import pytest
import torch

from autograder.exercise import Exercise, Group, Mistake
from autograder.feedback import feedback_page
from autograder.grading import grade_submission
from autograder.levels import ROOT
from autograder.session import Limits, RemoteTarget, Session
from autograder.submission import Cell, Unreadable, parse, read_bytes
from autograder.target import Status
from tests.autograder.submissions import SAMPLES, SHORT, answered

PASS, WRONG, MISSING, TIMEOUT, CRASHED, UNREADABLE = (
    "pass",
    "wrong",
    "missing",
    "timeout",
    "crashed",
    "unreadable",
)
DESERVED = {
    "sample-right": [PASS] * 6,
    "sample-another-way": [PASS] * 6,
    "sample-real-life": [PASS] * 6,
    "sample-empty": [MISSING] * 6,
    "sample-corrupt": [UNREADABLE] * 6,
    "sample-partly-right": [WRONG, WRONG, WRONG, WRONG, PASS, MISSING],
    "sample-loop": [TIMEOUT, PASS, PASS, PASS, TIMEOUT, PASS],
    "sample-crash": [PASS, PASS, CRASHED, PASS, PASS, PASS],
}


@pytest.mark.parametrize("sample", DESERVED)
def test_a_sample_gets_what_it_deserves(graded, sample):
    records = graded[sample].records
    assert [str(record.status) for record in records] == DESERVED[sample]
    assert all(r.points == r.max for r in records if r.status == PASS)
    assert all(r.points < r.max for r in records if r.status != PASS)


def test_cheating_earns_nothing(graded):
    assert graded["sample-cheating"].points == 0
    assert (
        "the check `check_softmax` was changed (it was not run)" in graded["sample-cheating"].submission.notes
    )


def test_a_mistake_of_the_catalogue_gets_its_hint(graded, assignment):
    hints = {m.hint for exercise in assignment.exercises for m in exercise.mistakes}
    wrong = [record for record in graded["sample-partly-right"].records if record.status == WRONG]
    assert len(wrong) == 4 and all(record.diagnosis in hints for record in wrong)


def test_samples_are_what_the_script_makes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    make_samples = import_module("make_samples")
    monkeypatch.setattr(make_samples, "SAMPLES", tmp_path)
    monkeypatch.setattr(make_samples, "ROOT", tmp_path)
    make_samples.main()
    shipped = {path.relative_to(SAMPLES): path.read_bytes() for path in SAMPLES.rglob("*.ipynb")}
    assert shipped == {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.ipynb")}


def test_the_same_seed_gives_the_same_records(assignment, sandbox, graded):
    data = (SAMPLES / "sample-partly-right" / "level2_attention" / "level2_attention.ipynb").read_bytes()
    again = grade_submission(data, "sample-partly-right", assignment, sandbox, 0, SHORT)
    before = graded["sample-partly-right"].records
    assert [replace(r, seconds=0.0) for r in again.records] == [replace(r, seconds=0.0) for r in before]


def test_an_exercise_of_ones_own_is_graded(assignment, sandbox):
    """Nothing in the grader knows level 2."""
    mistake = Mistake("minus", lambda x: -x, "Mind the sign.")
    double = Exercise(
        "double", "attention", "Twice", 1, 1, lambda x: 2 * x,
        (Group("numbers", 3, lambda g: (torch.randn(3, generator=g, dtype=torch.float64),), gradients=True),),
        (mistake,),
    )  # fmt: skip
    own = replace(assignment, exercises=(double,))
    cells = [nbformat.v4.new_code_cell("def double(x):\n    return -x")]
    data = nbformat.writes(nbformat.v4.new_notebook(cells=cells)).encode()
    (record,) = grade_submission(data, "somebody", own, sandbox, 0, SHORT).records
    assert (record.points, record.max, record.diagnosis) == (0, 3, "Mind the sign.")


def test_an_endless_loop_in_a_cell_costs_that_cell(sandbox):
    cells = [
        Cell("code", "x = 1"),
        Cell("code", "while True: pass"),
        Cell("code", "def f(): return float(x)"),
    ]
    with Session(sandbox, cells, SHORT) as session:
        session.run()
        assert [session.outcomes[n].ending for n in range(3)] == [None, Status.TIMEOUT, None]
        assert RemoteTarget(session, "f").call(()).value.item() == 1.0


def test_time_for_a_whole_submission_is_limited(sandbox):
    cells = [Cell("code", "while True: pass")] * 20
    with Session(sandbox, cells, Limits(cell=0.5, call=0.5, submission=2)) as session:
        session.run()
        assert {outcome.ending for outcome in session.outcomes.values()} == {Status.TIMEOUT}
        assert RemoteTarget(session, "f").call(()).status is Status.TIMEOUT


@pytest.mark.parametrize(
    "body",
    [
        "return {'a': 1}",
        "return torch.zeros(3).to_sparse()",
        "return torch.zeros(3).to(torch.float8_e5m2)",
        "class Sly(torch.Tensor): pass\n    return torch.zeros(3).as_subclass(Sly)",
        "raise SystemExit",
        "raise BaseException('x' * 10**7)",
        "return 10 ** 400",
        "return [[[[[[[[1]]]]]]]]",
        "def generate(): yield 1\n    return generate()",
    ],
)
def test_an_answer_of_a_strange_kind_is_wrong(sandbox, body):
    with Session(sandbox, [Cell("code", f"import torch\ndef f():\n    {body}")], SHORT) as session:
        assert RemoteTarget(session, "f").call(()).status is Status.WRONG


def test_a_result_that_is_too_large_costs_that_call(sandbox):
    code = "import torch\ndef f(): return torch.zeros(20_000_000)\ndef g(): return 1.0"
    with Session(sandbox, [Cell("code", code)], SHORT) as session:
        assert RemoteTarget(session, "f").call(()).status is Status.WRONG
        assert RemoteTarget(session, "g").call(()).value == 1.0


def test_a_made_up_exception_cannot_carry_the_inputs_out(sandbox):
    code = "def f(x):\n    raise type(f'Input{x}', (Exception,), {})(x)"
    with Session(sandbox, [Cell("code", code)], SHORT) as session:
        assert RemoteTarget(session, "f").call((0.123,)).error == "Exception"


def test_a_syntax_error_is_named(assignment, sandbox):
    data = answered(assignment, softmax="def softmax(x, dim:\n    return x")
    record = grade_submission(data, "somebody", assignment, sandbox, 0, SHORT).records[0]
    assert record.status is Status.MISSING and "SyntaxError" in record.diagnosis


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe{}", "UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "no notebook format"),
        (b'{"nbformat": 3, "worksheets": []}', "old notebook format"),
        (b'{"nbformat": 4, "cells": []}', "without cells"),
        (b'{"nbformat": 4, "cells": [1]}', "cell 1"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": [1]}]}', "cell 1"),
        (b'{"nbformat": 4, "cells": [' + b",".join([b"{}"] * 1001) + b"]}", "more than 1000 cells"),
    ],
)
def test_what_is_no_notebook_is_refused_with_the_reason(assignment, data, reason):
    with pytest.raises(Unreadable, match=reason):
        parse(data, assignment)


def test_strange_characters_and_metadata_do_no_harm(assignment, sandbox):
    cell = {
        "cell_type": "code",
        "source": "x = '\ud800\0'",
        "metadata": {"nbgrader": {"grade_id": ["softmax"]}},
    }
    data = json.dumps({"nbformat": 4, "nbformat_minor": 2, "cells": [cell]}).encode()
    graded = grade_submission(data, "somebody", assignment, sandbox, 0, SHORT)
    assert {record.status for record in graded.records} == {Status.MISSING}
    feedback_page(graded, assignment).encode()


def _hand_in(folder, content: bytes = b"{}"):
    path = folder / "one" / "level2_attention" / "level2_attention.ipynb"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_a_plain_file_is_read(tmp_path):
    _hand_in(tmp_path, b"content")
    assert read_bytes(tmp_path, "one", "level2_attention") == b"content"


@pytest.mark.parametrize(
    "trick", ["symlink", "hard link", "fifo", "folder", "large", "linked folder", "missing"]
)
def test_what_is_no_plain_file_is_not_opened(tmp_path, trick):
    path = _hand_in(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    if trick == "large":
        os.truncate(path, 10_000_001)
    elif trick == "linked folder":
        path.parent.rename(tmp_path / "elsewhere")
        path.parent.symlink_to(tmp_path / "elsewhere")
    else:
        path.unlink()
    makers = {"symlink": path.symlink_to, "hard link": path.hardlink_to}
    if trick in makers:
        makers[trick](secret)
    elif trick == "fifo":
        os.mkfifo(path)
    elif trick == "folder":
        path.mkdir()
    with pytest.raises(Unreadable):
        read_bytes(tmp_path, "one", "level2_attention")


def test_a_duplicated_and_a_deleted_cell_are_noted(assignment):
    made = nbformat.from_dict(assignment.notebook)
    cells = {c.metadata.get("nbgrader", {}).get("grade_id"): c for c in made.cells}
    made.cells.append(nbformat.from_dict(cells["softmax"]))
    made.cells.remove(cells["scores"])
    notes = parse(json.dumps(made).encode(), assignment).notes
    assert notes == ("the cell `softmax` is there 2 times", "the cell `scores` is missing")
