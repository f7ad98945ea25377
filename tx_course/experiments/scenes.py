"""Pictures made of real garments on a dark ground: for levels 5 and 6.

Axes: b batch, m garments of a picture, then rows and columns of pixels or of cells (4 by 4 pixels).
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from tx_course.data.garments import CLASSES, load_garments

SIDE, GARMENT, CELL = 48, 14, 4
"""Pixels along a side of a picture, of a garment in it, and of a cell."""

KINDS = ("trousers", "pullover", "sneaker", "bag")
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Scenes:
    """Pictures (b, channels, 48, 48) from 0 to 1, and what each place of them should answer.

    ``garment`` (b, 12, 12) says for each cell which garment it lies well inside of, or −1; ``answers`` (b, m)
    are the labels that a garment's cells should give.
    """

    images: Tensor
    garment: Tensor
    answers: Tensor

    @property
    def answer(self) -> Tensor:
        """The answer of each cell (b, 12, 12), or −100 where nothing is asked."""
        asked = self.answers.gather(1, self.garment.flatten(1).clamp(min=0)).view_as(self.garment)
        return asked.masked_fill(self.garment < 0, -100)


@cache
def _garments(test: bool) -> Tensor:
    """Return the garments of ``KINDS`` at half their size, (kinds, n, 14, 14)."""
    garments = load_garments()
    images = garments.test_images if test else garments.train_images
    labels = garments.test_labels if test else garments.train_labels
    small = F.avg_pool2d(images, 2)[:, 0]
    return torch.stack([small[labels == CLASSES.index(kind)] for kind in KINDS])


@cache
def _layouts(count: int, apart: int) -> Tensor:
    """Return 4,096 ways to place ``count`` garments at least ``apart`` pixels apart: (4096, m, 2)."""
    generator = torch.Generator().manual_seed(0)
    kept: list[Tensor] = []
    while sum(map(len, kept)) < 4096:
        corner = torch.randint(SIDE - GARMENT + 1, (4096, count, 2), generator=generator)
        distance = (corner[:, :, None] - corner[:, None]).abs().amax(-1)  # (4096, m, m)
        distance[:, range(count), range(count)] = SIDE
        kept.append(corner[distance.amin((1, 2)) >= apart])
    return torch.cat(kept)[:4096]


def _draw(kinds: Tensor, apart: int, test: bool, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw garments of the given ``kinds`` (b, m) and where they go.

    Returns their pixels (b, m, 14, 14), the rows they cover (b, m, 14, 1) and the columns (b, m, 1, 14).
    """
    pool, layouts = _garments(test), _layouts(kinds.size(1), apart)
    which = torch.randint(pool.size(1), kinds.shape, generator=generator)
    corner = layouts[torch.randint(len(layouts), (len(kinds),), generator=generator)]  # (b, m, 2)
    covered = corner[..., None] + torch.arange(GARMENT)  # (b, m, 2, 14)
    return pool[kinds, which], covered[:, :, 0, :, None], covered[:, :, 1, None, :]


def _compose(
    pixels: Tensor, rows: Tensor, columns: Tensor, channel: Tensor, channels: int
) -> tuple[Tensor, Tensor]:
    """Paste garments into their ``channel`` (b, m): images, and which garment each cell is well inside of."""
    b, m = channel.shape
    sample = torch.arange(b).view(b, 1, 1, 1)
    images = torch.zeros(b, channels, SIDE, SIDE)
    images[sample, channel[..., None, None], rows, columns] = pixels
    garment = torch.full((b, SIDE, SIDE), -1)
    inside = slice(3, GARMENT - 2)
    garment[sample, rows[:, :, inside], columns[..., inside]] = torch.arange(m).view(1, m, 1, 1)
    return images, garment[:, CELL // 2 :: CELL, CELL // 2 :: CELL]


def two_far_apart(count: int, generator: torch.Generator, test: bool = False) -> Scenes:
    """Draw pictures of two garments far apart; each should name the other's kind.

    >>> scenes = two_far_apart(5, torch.Generator().manual_seed(0))
    >>> scenes.images.shape, scenes.answer.shape
    (torch.Size([5, 1, 48, 48]), torch.Size([5, 12, 12]))
    """
    kinds = torch.randint(len(KINDS), (count, 2), generator=generator)
    drawn = _draw(kinds, 26, test, generator)
    images, garment = _compose(*drawn, torch.zeros_like(kinds), channels=1)
    return Scenes(images, garment, kinds.flip(1))


def two_pairs(count: int, generator: torch.Generator, test: bool = False) -> Scenes:
    """Draw pictures of two pairs of garments, partners of one kind; each should name its partner's colour.

    >>> two_pairs(5, torch.Generator().manual_seed(0)).answers.shape
    torch.Size([5, 4])
    """
    first = torch.randint(len(KINDS), (count,), generator=generator)
    second = (first + torch.randint(1, len(KINDS), (count,), generator=generator)) % len(KINDS)
    kinds = torch.stack([first, first, second, second], dim=1)
    colours = torch.randint(len(COLOURS), (count, 4), generator=generator)
    images, garment = _compose(*_draw(kinds, 15, test, generator), colours, channels=3)
    return Scenes(0.8 * images, garment, colours[:, [1, 0, 3, 2]])
