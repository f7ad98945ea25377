"""Build the book: the exercises as their learners get them, then the HTML, with every warning an error.

    python tools/build_book.py [--output DIR]

The book is then in DIR/_build/html. It needs no network to be read.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import click
import nbformat

from autograder.exercises import stems
from autograder.levels import ROOT, find_level
from autograder.release import release_notebook

EXERCISES = ROOT / "exercises"


def write_exercises() -> None:
    """Write the learners' notebooks, which hold no solutions, to where _toc.yml expects them.

    The ones in release/ would not do: they may hold a learner's work.
    """
    shutil.rmtree(EXERCISES, ignore_errors=True)
    EXERCISES.mkdir()
    for level in map(find_level, stems()):
        nbformat.write(release_notebook(level), EXERCISES / f"{level.assignment}.ipynb")


def build_html(output: Path) -> None:
    """Run Jupyter Book, or exit with its error."""
    command = [Path(sysconfig.get_path("scripts")) / "jupyter-book", "build", ROOT, "--path-output", output]
    # --all, because a page's sidebar shows the titles of the others; -W, because a warning is a broken page.
    subprocess.run([*command, "--all", "-W", "--keep-going", "-q"], check=True)


@click.command(help=__doc__)
@click.option(
    "--output", default=ROOT, type=click.Path(file_okay=False, path_type=Path), help="Default: here."
)
def main(output: Path) -> None:
    write_exercises()
    try:
        build_html(output)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    click.echo(f"The book: {(output / '_build/html/index.html').resolve()}")


if __name__ == "__main__":
    main()
