"""The autograder: `check` for learners, grading for instructors."""
