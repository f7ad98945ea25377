"""The autograder: `check` for learners, grading for instructors."""

from autograder.check import check, done, progress

__all__ = ["check", "done", "progress"]
