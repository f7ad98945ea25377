"""What a check found, as data: ``check`` prints it for a learner, the grader turns it into marks."""

from dataclasses import dataclass

from autograder.target import Status


@dataclass(frozen=True)
class GroupResult:
    """One group of checks: its points if it passed, and else what went wrong.

    ``message`` says what failed, in words. ``example`` shows the smallest failing input with expected and
    received values; the grader leaves it out of the feedback, because it holds inputs of grading.
    """

    name: str
    points: int
    status: Status
    message: str = ""
    example: str = ""

    @property
    def earned(self) -> int:
        """All the points of the group, or none."""
        return self.points if self.status is Status.PASS else 0


@dataclass(frozen=True)
class Verdict:
    """The outcome of one exercise, and the name and hint of the mistake recognised, if any."""

    exercise: str
    groups: tuple[GroupResult, ...]
    diagnosis: str = ""
    mistake: str = ""

    @property
    def points(self) -> int:
        """The marks the exercise is worth."""
        return sum(group.points for group in self.groups)

    @property
    def earned(self) -> int:
        """The marks the answer earned."""
        return sum(group.earned for group in self.groups)

    @property
    def status(self) -> Status:
        """``PASS`` if every group passed, else the status of the first group that did not."""
        return next((group.status for group in self.groups if group.status is not Status.PASS), Status.PASS)
