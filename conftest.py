"""What pytest collects and how it runs: tests, doctests, and the notebooks of chapters and solutions."""

import os

from hypothesis import settings

# Two threads here and in the notebooks' kernels, as when they were built, whatever the machine has.
os.environ.setdefault("OMP_NUM_THREADS", "2")

# The .py beside a notebook is its source, not a module. The rest is generated.
collect_ignore_glob = ["chapters/*.py", "solutions/*/*.py", "*.ipynb_checkpoints*"]
collect_ignore = [
    *(".venv", "_build", "exercises", "release", "samples", "submitted", "autograded", "feedback"),
    *("benchmarks", "tools", "nbgrader_config.py"),
]

# Machines differ in speed; no test fails for being slow.
settings.register_profile("course", deadline=None)
settings.load_profile("course")
