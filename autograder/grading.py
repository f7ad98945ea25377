"""Grade submissions: from the bytes of a notebook to one record per exercise."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from autograder.assignment import Assignment
from autograder.examine import examine
from autograder.exercise import Exercise
from autograder.sandbox.host import Sandbox, SandboxError
from autograder.session import Limits, Outcome, RemoteTarget, Session
from autograder.submission import Submission, Unreadable, parse, read_bytes
from autograder.target import Status
from autograder.verdict import Verdict

LIMITS = Limits()
ROUNDS = 8  # a few more inputs than the learner's own check draws


@dataclass(frozen=True)
class Record:
    """What one learner earned in one exercise. ``seconds`` is the wall time its checks took."""

    learner: str
    exercise: str
    points: int
    max: int
    status: Status
    diagnosis: str
    seconds: float


@dataclass(frozen=True)
class Graded:
    """Everything that is known about one submission after grading.

    ``problem`` says why it could not be read; then there are no verdicts and no cells.
    """

    learner: str
    records: tuple[Record, ...]
    verdicts: tuple[Verdict, ...] = ()
    submission: Submission = field(default_factory=Submission)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    problem: str = ""

    @property
    def points(self) -> int:
        """The marks earned in all exercises."""
        return sum(record.points for record in self.records)

    @property
    def needs_a_person(self) -> bool:
        """Whether somebody should look at this submission."""
        return bool(self.problem)


def grade_submission(
    data: bytes, learner: str, assignment: Assignment, sandbox: Sandbox, seed: int, limits: Limits = LIMITS
) -> Graded:
    """Grade the notebook ``data``. The result depends on the bytes, the exercises and ``seed`` alone.

    No submission makes this raise: one that cannot be read, or whose sandbox cannot be started, has a
    ``problem`` and no points.
    """
    try:
        submission = parse(data, assignment)
        with Session(sandbox, submission.cells, limits) as session:
            session.run()
            graded = [_grade(exercise, learner, session, seed) for exercise in assignment.exercises]
    except Unreadable as error:
        return unreadable(learner, assignment, str(error))
    except SandboxError as error:
        return unreadable(learner, assignment, f"not graded: {error}. Grade this one again.")
    verdicts, records = zip(*graded, strict=True)
    return Graded(learner, records, verdicts, submission, session.outcomes)


def unreadable(learner: str, assignment: Assignment, problem: str) -> Graded:
    """Return the result of a submission that cannot be graded, because of ``problem``."""
    records = tuple(
        Record(learner, exercise.name, 0, exercise.points, Status.UNREADABLE, problem, 0.0)
        for exercise in assignment.exercises
    )
    return Graded(learner, records, problem=problem)


def _grade(exercise: Exercise, learner: str, session: Session, seed: int) -> tuple[Verdict, Record]:
    start = time.perf_counter()
    verdict = _without_examples(examine(exercise, RemoteTarget(session, exercise.name), seed, ROUNDS))
    seconds = round(time.perf_counter() - start, 3)
    diagnosis = verdict.diagnosis
    error = session.outcome(exercise.name).error
    if verdict.status is Status.MISSING and error:
        diagnosis = f"Your cell stopped with {error} before the function was there."
    record = Record(
        learner, exercise.name, verdict.earned, verdict.points, verdict.status, diagnosis, seconds
    )
    return verdict, record


def _without_examples(verdict: Verdict) -> Verdict:
    """Drop the failing inputs, so that nothing that is written later can show an input of grading."""
    return replace(verdict, groups=tuple(replace(group, example="") for group in verdict.groups))


def find_learners(submitted: Path, assignment: str) -> list[str]:
    """Return who handed in ``assignment``, in order: the names of the folders in ``submitted``."""
    folders = (path for path in submitted.iterdir() if path.is_dir() or path.is_symlink())
    names = (path.name for path in folders if not path.name.startswith("."))
    return sorted(name for name in names if (submitted / name / assignment).exists())


def grade_folder(
    submitted: Path, assignment: Assignment, sandbox: Sandbox, seed: int, limits: Limits = LIMITS
) -> Iterator[Graded]:
    """Grade, learner by learner, what was handed in as SUBMITTED/LEARNER/ASSIGNMENT/ASSIGNMENT.ipynb."""
    for name in find_learners(submitted, assignment.name):
        learner = name.encode("utf-8", "backslashreplace").decode()  # a folder's name may be any bytes
        try:
            data = read_bytes(submitted, name, assignment.name)
        except Unreadable as error:
            yield unreadable(learner, assignment, str(error))
        else:
            yield grade_submission(data, learner, assignment, sandbox, seed, limits)
