"""The command line: ``python -m autograder grade | release | validate``."""

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track

from autograder.assignment import Assignment, load_assignment
from autograder.autograded import write_graded
from autograder.exercises import stems
from autograder.feedback import write_feedback
from autograder.gradebook import open_gradebook, read_timestamp, save
from autograder.grading import Graded, find_learners, grade_folder
from autograder.levels import ROOT, find_level
from autograder.release import release as release_level
from autograder.sandbox.host import Sandbox, SandboxError
from autograder.sandbox.protections import try_to_break
from autograder.summary import print_summary, write_json
from autograder.validate import validate as validate_level

console = Console()
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Release the exercises, grade what learners hand in, and test the exercises themselves."""


@main.command()
@click.argument("assignment")
@click.option(
    "--submitted",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Holds LEARNER/ASSIGNMENT/ASSIGNMENT.ipynb. Default: submitted/, else the samples.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write one record per learner and exercise to this file.",
)
@click.option(
    "--isolation",
    type=click.Choice(["auto", "bwrap", "none"]),
    default="auto",
    help="How to keep the learners' code apart. none: not at all.",
)
@click.option("--db", help="The gradebook, as an SQLAlchemy URL. Default: gradebook.db in the output folder.")
@click.option("--output", type=FOLDER, help="Where autograded/, feedback/ and gradebook.db go.")
@click.option("--seed", type=int, help="Draw the same inputs again. Default: new ones for each run.")
def grade(
    assignment: str,
    submitted: Path | None,
    json_file: Path | None,
    isolation: str,
    db: str | None,
    output: Path | None,
    seed: int | None,
) -> None:
    """Grade what was handed in for ASSIGNMENT, such as level2_attention.

    Exit status: 0 when everything is graded, 1 when somebody has to look at a submission (one of the samples
    is meant to be unreadable, so they do not count), 2 when nothing could be graded.
    """
    known = _load(assignment)
    folder, output = _folders(known, submitted, output)
    if not find_learners(folder, known.name):
        raise click.UsageError(f"nobody handed in {known.name}: there is no {folder}/LEARNER/{known.name}/")
    output.mkdir(parents=True, exist_ok=True)
    db = db or f"sqlite:///{(output / 'gradebook.db').resolve()}"
    seed = secrets.randbits(32) if seed is None else seed
    with _sandbox(known, isolation) as sandbox:
        graded = _grade_all(known, folder, sandbox, seed, db, output)
    print_summary(graded, console)
    if json_file:
        write_json(graded, json_file)
        print(f"records   {json_file}")
    print(
        f"marks     {db}\nfeedback  {output / 'feedback'}\ngraded    {output / 'autograded'}  (seed {seed})"
    )
    problems = [one for one in graded if one.needs_a_person]
    if problems:
        print(f"{len(problems)} of {len(graded)} need a person: {', '.join(one.learner for one in problems)}")
    sys.exit(1 if problems and not _are_samples(folder) else 0)


def _are_samples(folder: Path) -> bool:
    return folder.parent == ROOT / "samples"


def _load(name: str) -> Assignment:
    try:
        return load_assignment(name)
    except (ValueError, ModuleNotFoundError) as error:
        raise click.UsageError(str(error)) from error


def _folders(assignment: Assignment, submitted: Path | None, output: Path | None) -> tuple[Path, Path]:
    """Return where the submissions are and where the results go, and say so when they are the samples."""
    if submitted or (ROOT / "submitted").is_dir():
        return submitted or ROOT / "submitted", output or ROOT
    samples = ROOT / "samples" / assignment.name
    if not samples.is_dir():
        raise click.UsageError("there is no submitted/ folder; say where the notebooks are with --submitted")
    print(f"There is no submitted/ folder, so these are the sample submissions in {samples}.")
    return samples, output or ROOT / "_build" / "samples"


@contextmanager
def _sandbox(assignment: Assignment, isolation: str) -> Iterator[Sandbox]:
    """Start the sandbox and show which protections hold. Without isolation, say what that means."""
    try:
        with Sandbox(assignment.level, "none" if isolation == "none" else "bwrap") as sandbox:
            _show_protections(sandbox, assignment)
            yield sandbox
    except SandboxError as error:
        raise click.UsageError(
            f"the sandbox does not work here: {error}\nIf you trust every notebook, say --isolation none."
        ) from error


def _show_protections(sandbox: Sandbox, assignment: Assignment) -> None:
    if sandbox.isolation == "none":
        print("No isolation: the notebooks run as you, and can read, change and send whatever you can.")
        return
    found = try_to_break(sandbox, assignment.level.stem)
    print(f"Sandbox: {len(found)} protections, each tried just now.")
    for protection in found:
        print(f"  {'✓' if protection.holds else '✗'} {protection.sentence}")
    missing = [f"{protection.sentence} ({protection.detail})" for protection in found if not protection.holds]
    if missing:
        raise SandboxError("a protection is missing: " + "; ".join(missing))


def _grade_all(
    assignment: Assignment, folder: Path, sandbox: Sandbox, seed: int, db: str, output: Path
) -> list[Graded]:
    results = grade_folder(folder, assignment, sandbox, seed)
    total = len(find_learners(folder, assignment.name))
    graded = []
    with open_gradebook(db, assignment) as gradebook:
        for one in track(results, "Grading", total, console=console, disable=not console.is_terminal):
            write_graded(one, assignment, output / "autograded")
            write_feedback(one, assignment, output / "feedback")
            save(gradebook, assignment, one, read_timestamp(folder / one.learner / assignment.name))
            graded.append(one)
    return graded


@main.command()
@click.argument("level", required=False)
@click.option("--output", type=FOLDER, default=ROOT / "release", help="Default: release/ in the course.")
@click.option("--force", is_flag=True, help="Overwrite notebooks that somebody has worked in.")
def release(level: str | None, output: Path, force: bool) -> None:
    """Make the learners' notebooks of LEVEL, or of every level: the solutions with the answers taken out."""
    for stem in [level] if level else stems():
        try:
            written = release_level(find_level(stem), output, force)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        print(written or f"{output / find_level(stem).assignment}: kept, there are answers in it (--force)")


@main.command()
@click.argument("level")
def validate(level: str) -> None:
    """Say whether the exercises of LEVEL tell right from wrong, and every mistake from the others."""
    try:
        rows, problems = validate_level(find_level(level).stem)
    except (ValueError, ModuleNotFoundError) as error:
        raise click.UsageError(str(error)) from error
    width = max(len(row.name) for row in rows)
    print(f"{'exercise':<{width}}  points  groups  mistakes  seconds")
    for row in rows:
        counts = f"{row.points:>6}  {row.groups:>6}  {row.mistakes:>8}  {row.seconds:>7.2f}"
        print(f"{row.name:<{width}}  {counts}  {'✗' if row.problems else '✓'}")
    print("\n".join(problems) or f"{sum(row.points for row in rows)} points; every exercise is well made.")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main(prog_name="python -m autograder")
