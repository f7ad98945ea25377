"""Pictures of one to four real garments of many sizes, and where each is: for the detector of level 6."""

import random
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from tx_course.data.garments import CLASSES, load_garments
from tx_course.detection import Target, middles

SIDE = 64
"""Pixels along a side of a picture."""

SIZES = (14, 16, 18, 20, 22, 24)
"""Pixels along a side of a garment's own square."""

KINDS = ("trousers", "dress", "sandal", "sneaker", "bag")

Placed = tuple[int, int, int]


def _place(chance: random.Random) -> list[Placed]:
    """Place one to four squares (size, row, column) that overlap by two pixels at most."""
    squares: list[Placed] = []
    for _ in range(chance.randint(1, 4)):
        size = chance.choice(SIZES)
        row, column = chance.randint(0, SIDE - size), chance.randint(0, SIDE - size)
        apart = (
            max(row - r, column - c, r - row + s - size, c - column + s - size) >= min(s, size) - 2
            for s, r, c in squares
        )
        if all(apart):
            squares.append((size, row, column))
    return squares


@cache
def _layouts() -> list[list[Placed]]:
    chance = random.Random(0)
    return [_place(chance) for _ in range(8192)]


@cache
def _garments(test: bool) -> tuple[dict[int, Tensor], dict[int, Tensor], Tensor]:
    """Return the garments of ``KINDS`` at every size, their boxes in pixels by corners, and their labels."""
    garments = load_garments()
    images = garments.test_images if test else garments.train_images
    labels = garments.test_labels if test else garments.train_labels
    kinds = torch.tensor([CLASSES.index(kind) for kind in KINDS])
    chosen = (labels[:, None] == kinds).any(1)
    sizes = {
        size: F.interpolate(images[chosen], size=(size, size), mode="bilinear", antialias=True)[:, 0]
        for size in SIZES
    }
    boxes = {size: torch.stack([_box(image) for image in scaled]) for size, scaled in sizes.items()}
    return sizes, boxes, (labels[chosen][:, None] == kinds).int().argmax(1)


def _box(image: Tensor) -> Tensor:
    """Return left, top, right, bottom, in pixels, of what is brighter than a tenth."""
    rows, columns = (image > 0.1).nonzero().T
    return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def draw_crowds(count: int, generator: torch.Generator, test: bool = False) -> tuple[Tensor, list[Target]]:
    """Draw pictures (b, 1, 64, 64), from −0.5 to 1.5, of one to four garments, and the garments of each.

    Test pictures are of garments that no other picture shows.

    >>> images, targets = draw_crowds(2, torch.Generator().manual_seed(0))
    >>> images.shape, targets[0][1].shape[1]
    (torch.Size([2, 1, 64, 64]), 4)
    """
    images, targets = torch.zeros(count, 1, SIDE, SIDE), []
    garments, boxes, labels = _garments(test)
    layouts = _layouts()
    chosen = torch.randint(len(layouts), (count,), generator=generator).tolist()
    which = torch.randint(len(labels), (count, 4), generator=generator)
    for image, layout, row_of_garments in zip(images[:, 0], chosen, which, strict=True):
        squares = layouts[layout]
        garment = row_of_garments[: len(squares)]
        corner = []
        for (size, row, column), number in zip(squares, garment.tolist(), strict=True):
            spot = image[row : row + size, column : column + size]
            torch.maximum(spot, garments[size][number], out=spot)
            corner.append(boxes[size][number] + torch.tensor([column, row, column, row]))
        targets.append((labels[garment], middles(torch.stack(corner) / SIDE)))
    return 2 * images - 0.5, targets
