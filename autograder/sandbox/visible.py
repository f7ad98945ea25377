"""Which modules of ``tx_course`` a notebook may import while it is graded: helpers, and earlier levels."""

import ast
from pathlib import Path

from autograder.levels import LEVELS, ROOT, Level

HELPERS = ("data", "explorer", "measure", "plots", "train")
LIBRARY = ROOT / "tx_course"


def visible_modules(level: Level) -> list[Path]:
    """Return the modules and packages of ``tx_course`` that help with ``level`` without answering it.

    These are the helpers and the modules of earlier levels, with whatever they import, except those that
    import a module of this or a later level.
    """
    modules = {path.stem: path for path in LIBRARY.iterdir() if path.suffix == ".py" or _is_package(path)}
    imports = {name: _imports(path) & modules.keys() for name, path in modules.items()}
    hidden = {other.stem for other in LEVELS if other.number >= level.number}
    earlier = {other.stem for other in LEVELS if other.number < level.number}
    wanted = set().union(*(_reach(name, imports) for name in {*HELPERS, *earlier} & modules.keys()))
    names = {name for name in wanted if not _reach(name, imports) & hidden}
    return [modules[name] for name in sorted({"__init__", *names})]


def _is_package(path: Path) -> bool:
    return (path / "__init__.py").is_file()


def _reach(name: str, imports: dict[str, set[str]]) -> set[str]:
    """Return ``name`` and all that it imports, directly or through others."""
    found, new = set(), {name}
    while new:
        found |= new
        new = set().union(*(imports[one] for one in new)) - found
    return found


def _imports(path: Path) -> set[str]:
    """Return the modules of ``tx_course`` that the source at ``path`` imports anywhere."""
    found = set()
    for file in path.rglob("*.py") if path.is_dir() else [path]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {_second(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {_second(f"{node.module}.{alias.name}") for alias in node.names}
    return found - {""}


def _second(dotted: str) -> str:
    package, _, rest = dotted.partition(".")
    return rest.split(".")[0] if package == LIBRARY.name else ""
