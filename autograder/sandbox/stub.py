"""What a notebook finds as ``autograder`` while it is graded: ``check`` and the others do nothing.

The checks of grading run outside, where the notebook cannot reach them.
"""


def check(name: str, answer: object = None) -> None:
    """Do nothing."""


def progress(level: str | None = None) -> None:
    """Do nothing."""


def done(*names: str) -> bool:
    """Return False: what a notebook shows once an exercise is done is not needed for its marks."""
    return False
