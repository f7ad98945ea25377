"""Build and execute the notebook beside each py:percent source.

    python tools/build_notebooks.py [--force] [PATH.py ...]

Without paths, every source in chapters/ and solutions/ is looked at. A notebook whose cells agree with its
source is left alone, unless --force. Building the same source again gives the same bytes.
"""

import hashlib
import sys
import time
from collections import Counter
from pathlib import Path

import click
import jupytext
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_SECONDS = 600


def sources() -> list[Path]:
    """Return every py:percent source of the course, in order."""
    return sorted(ROOT.glob("chapters/*.py")) + sorted(ROOT.glob("solutions/*/*.py"))


def read_source(source: Path) -> NotebookNode:
    """Return the notebook that ``source`` describes, not executed, with cell ids that hash the cell."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        content = f"{cell.cell_type}\n{cell.source}"
        cell.id = hashlib.sha256(f"{content}\n{seen[content]}".encode()).hexdigest()[:12]
        seen[content] += 1
    return notebook


def without_outputs(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of ``notebook`` as it was before it was executed."""
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return copy


def is_built(source: Path) -> bool:
    """Whether the notebook beside ``source`` exists, agrees with it and was executed to the end."""
    path = source.with_suffix(".ipynb")
    if not path.exists():
        return False
    notebook = nbformat.read(path, as_version=4)
    executed = all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    return executed and without_outputs(notebook) == read_source(source)


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run ``notebook`` in place, in ``folder``, with the Python that runs this script."""
    # No kernel directories: the kernel is this environment's own, whatever else is installed for the user.
    kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), kernel_name="python3")
    NotebookClient(
        notebook,
        km=kernel,
        resources={"metadata": {"path": str(folder)}},
        timeout=CELL_SECONDS,
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only
        coalesce_streams=True,
    ).execute()
    notebook.metadata = nbformat.from_dict(METADATA)  # the kernel adds its exact Python version


def describe(error: CellExecutionError, notebook: NotebookNode) -> str:
    """Say which cell failed and with what."""
    number = next(
        number
        for number, cell in enumerate(notebook.cells, start=1)
        if any(output.output_type == "error" for output in cell.get("outputs", []))
    )
    return f"cell {number} of {len(notebook.cells)} raised {error.ename}\n{error}"


def build(source: Path) -> None:
    """Write the executed notebook of ``source`` beside it, or exit naming the cell that failed."""
    notebook = read_source(source)
    try:
        execute(notebook, source.parent)
    except CellExecutionError as error:
        sys.exit(f"{source}: {describe(error, notebook)}")
    nbformat.write(notebook, source.with_suffix(".ipynb"))


@click.command(help=__doc__)
@click.option("--force", is_flag=True, help="Rebuild notebooks that agree with their source too.")
@click.argument("paths", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(paths: tuple[Path, ...], force: bool) -> None:
    for source in paths or sources():
        if not force and is_built(source):
            click.echo(f"{source.with_suffix('.ipynb')}: up to date")
            continue
        start = time.perf_counter()
        build(source)
        click.echo(f"{source.with_suffix('.ipynb')}: built in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
