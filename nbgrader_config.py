"""nbgrader's configuration: this folder is a course. Grade with ``python -m autograder grade``."""

from pathlib import Path

from autograder.release import CODE_STUB, TEXT_STUB

ROOT = Path(__file__).resolve().parent

c = get_config()  # noqa: F821  nbgrader defines it
c.CourseDirectory.root = str(ROOT)
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.db_url = f"sqlite:///{ROOT / 'gradebook.db'}"
# The .py beside a notebook is its source, with the solutions in it: it must not reach the learners.
c.CourseDirectory.ignore = [".ipynb_checkpoints", "__pycache__", "*.pyc", "*.py"]
c.ClearSolutions.code_stub = {"python": CODE_STUB}
c.ClearSolutions.text_stub = TEXT_STUB
