"""The feedback page of one learner: one file, no script, no request, readable in light and in dark."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from string import Template

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from autograder.assignment import Assignment
from autograder.autograded import ENDED
from autograder.exercise import Exercise
from autograder.grading import Graded, Record
from autograder.session import Outcome
from autograder.target import Status
from autograder.verdict import GroupResult, Verdict

PAGE = Template((Path(__file__).parent / "feedback.html").read_text("utf-8"))
MARKS = {Status.PASS: ("pass", "✓"), Status.MISSING: ("missing", "·")}
WORDS = {
    Status.PASS: "right",
    Status.WRONG: "not right yet",
    Status.MISSING: "not written yet",
    Status.TIMEOUT: "took too long",
    Status.CRASHED: "ended Python",
    Status.UNREADABLE: "could not be read",
}
SHOWN_CHARACTERS = 4_000


def feedback_page(graded: Graded, assignment: Assignment) -> str:
    """Return the page. It shows the learner's own work and what became of it; no input of grading, no
    reference code, nobody else."""
    level = assignment.level
    most = sum(record.max for record in graded.records)
    written = sum(cell.metadata.nbgrader.get("points", 0) for cell in _written(assignment).values())
    return PAGE.substitute(
        title=escape(f"Level {level.number} · {level.title}"),
        learner=escape(graded.learner),
        points=graded.points,
        most=most,
        written=f"The written answer ({written} points) is marked by a person." if written else "",
        notes="".join(f"<li>{_code(note)}</li>" for note in _notes(graded)),
        exercises="\n".join(_exercises(graded, assignment)),
    )


def write_feedback(graded: Graded, assignment: Assignment, folder: Path) -> Path:
    """Write the page to ``folder``/LEARNER/ASSIGNMENT/ASSIGNMENT.html and return where it is."""
    path = folder / graded.learner / assignment.name / f"{assignment.name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(feedback_page(graded, assignment), "utf-8")
    return path


def _notes(graded: Graded) -> list[str]:
    return [graded.problem] if graded.problem else list(graded.submission.notes)


def _written(assignment: Assignment) -> dict:
    cells = assignment.cells.items()
    return {
        name: cell for name, cell in cells if cell.metadata.nbgrader.solution and cell.metadata.nbgrader.grade
    }


def _exercises(graded: Graded, assignment: Assignment) -> Iterator[str]:
    for number, (exercise, record, verdict) in enumerate(
        zip(assignment.exercises, graded.records, graded.verdicts, strict=False), start=1
    ):
        yield _exercise(number, exercise, record, verdict, graded)
    for name in _written(assignment):
        if text := graded.submission.source(name).strip():
            yield f"<section><h2>In your own words</h2><pre class=text>{escape(text)}</pre></section>"


def _exercise(number: int, exercise: Exercise, record: Record, verdict: Verdict, graded: Graded) -> str:
    kind, mark = MARKS.get(record.status, ("fail", "✗"))
    groups = "".join(map(_group, verdict.groups))
    hint = f"<p class=hint><strong>Hint.</strong> {_code(record.diagnosis)}</p>" if record.diagnosis else ""
    return (
        f"<section class={kind}>"
        f"<h2><span><span class=mark aria-hidden=true>{mark}</span> {number}. {escape(exercise.title)}</span>"
        f"<span class=points>{record.points} of {record.max} points</span></h2>"
        f"<p class=state><code>{escape(exercise.name)}</code> is {WORDS[record.status]}.</p>"
        f"<ul class=groups>{groups}</ul>{hint}{_work(exercise.name, graded)}</section>"
    )


def _group(group: GroupResult) -> str:
    kind, mark = MARKS.get(group.status, ("fail", "✗"))
    message = f"<br><span class=message>{_code(group.message)}</span>" if group.message else ""
    return (
        f"<li class={kind}><span class=mark role=img aria-label='{WORDS[group.status]}'>{mark}</span> "
        f"{escape(group.name)} <span class=points>{group.earned}/{group.points}</span>{message}</li>"
    )


def _work(name: str, graded: Graded) -> str:
    """Show the learner's code for an exercise and what its cell printed."""
    source = graded.submission.source(name)
    if not source.strip():
        return ""
    code = highlight(source[:SHOWN_CHARACTERS], PythonLexer(), HtmlFormatter(nowrap=True))
    cells = enumerate(graded.submission.cells)
    outcomes = [graded.outcomes.get(n, Outcome()) for n, cell in cells if cell.grade_id == name]
    output = "".join(outcome.output or ENDED.get(outcome.ending, "") for outcome in outcomes)
    printed = f"<h3>Its output</h3>{_scroll(escape(output[:SHOWN_CHARACTERS]), 'output')}" if output else ""
    return f"<details><summary>Your code</summary>{_scroll(code, 'code')}{printed}</details>"


def _scroll(html: str, kind: str) -> str:
    """A wide line scrolls by itself, by keyboard too, and the page stays where it is."""
    return f"<pre class={kind} tabindex=0 role=region aria-label='{kind}'>{html}</pre>"


def _code(text: str) -> str:
    """Escape ``text`` and show what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
