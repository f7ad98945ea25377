"""What the command line says about a graded class: a table for people, records for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from autograder.grading import Graded
from autograder.target import Status

MARKS = {
    Status.PASS: "✓",
    Status.WRONG: "✗",
    Status.MISSING: "·",
    Status.TIMEOUT: "⧖",
    Status.CRASHED: "†",
    Status.UNREADABLE: "?",
}


def write_json(graded: Sequence[Graded], path: Path) -> None:
    """Write one record per learner and exercise, in the order of the class and of the notebook."""
    records = [asdict(record) for one in graded for record in one.records]
    path.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", "utf-8")


def print_summary(graded: Sequence[Graded], console: Console) -> None:
    """Print one line per learner: a table in a terminal, plain lines elsewhere."""
    rows = [(one.learner, _marks(one), _points(one), one.problem) for one in graded]
    legend = "  ".join(f"{mark} {status}" for status, mark in MARKS.items())
    if console.is_terminal:
        table = Table(title=None, caption=legend)
        for heading, justify in (
            ("learner", "left"),
            ("exercises", "left"),
            ("points", "right"),
            ("", "left"),
        ):
            table.add_column(heading, justify=justify)
        for row in rows:
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        console.print(table)
        return
    width = max((len(row[0]) for row in rows), default=0)
    for learner, marks, points, problem in rows:
        print(f"{learner:<{width}}  {marks}  {points}  {problem}".rstrip())
    print(legend)


def _marks(graded: Graded) -> str:
    return " ".join(MARKS[record.status] for record in graded.records)


def _points(graded: Graded) -> str:
    return f"{graded.points:>3}/{sum(record.max for record in graded.records)}"
