"""The nine levels by stem. The stem names everything that belongs to a level: files, modules, assignments."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Level:
    """One level of the course: ``assignment`` is the name of its notebooks, such as ``level2_attention``."""

    number: int
    stem: str
    title: str
    chinese: str

    @property
    def assignment(self) -> str:
        """The name of the level's notebooks."""
        return f"level{self.number}_{self.stem}"


LEVELS = (
    Level(1, "memory", "Attention is a mechanism", "看山是山"),
    Level(2, "attention", "Attention is a weighted average", "看山看石"),
    Level(3, "transformer", "Attention is all you need", "看山看峰"),
    Level(4, "bert", "Attention at scale", "看山看水"),
    Level(5, "non_local", "Attention beyond the local", "水转山回"),
    Level(6, "vision", "Attention is all you need to see", "山高水深"),
    Level(7, "graph", "Attention on graphs", "山水轮回"),
    Level(8, "interpret", "Looking inside attention", "山中有山"),
    Level(9, "variants", "One family", "山水合一"),
)


def find_level(name: str) -> Level:
    """Return the level whose stem or assignment is ``name``. Raises ValueError with the known names.

    >>> find_level("level2_attention").number
    2
    """
    for level in LEVELS:
        if name in (level.stem, level.assignment):
            return level
    raise ValueError(
        f"expected a level such as {LEVELS[1].assignment!r}, got {name!r}; known: {[x.stem for x in LEVELS]}"
    )
