"""A sandbox for the tests that need one."""

import os

import pytest

from autograder.assignment import Assignment, load_assignment
from autograder.grading import Graded, grade_folder
from autograder.sandbox.host import Sandbox, SandboxError
from tests.autograder.submissions import SAMPLES, SHORT


@pytest.fixture(scope="session")
def assignment() -> Assignment:
    return load_assignment("level2_attention")


@pytest.fixture(scope="session")
def sandbox(assignment):
    try:
        started = Sandbox(assignment.level)
    except SandboxError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"bubblewrap does not work here: {error}")
    with started:
        yield started


@pytest.fixture(scope="session")
def graded(assignment, sandbox) -> dict[str, Graded]:
    return {one.learner: one for one in grade_folder(SAMPLES, assignment, sandbox, 0, SHORT)}
