"""Swin, a Vision Transformer whose cost per pixel is the same at any size (level 9; Liu et al. 2021).

Axes: b batch, r rows and c columns of the grid, m features of the model. Between stages the grid halves and
the features double, as in a convolutional network. The blocks are in ``windows.py``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tx_course.windows import SwinBlock


@dataclass(frozen=True)
class SwinConfig:
    """Sizes of a Swin: the paper's Swin-T unless said otherwise (Liu et al. 2021, 3.3).

    ``image_size``, ``patch`` (pixels) and ``window`` (cells) are sides; ``depths`` and ``heads`` give each
    stage's number of blocks and of heads.

    >>> SwinConfig().depths
    (2, 2, 6, 2)
    """

    image_size: int = 224
    channels: int = 3
    classes: int = 1000
    patch: int = 4
    d_model: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7

    @classmethod
    def small(cls, classes: int = 10) -> "SwinConfig":
        """Return the course's size, for grey images of 28 by 28 pixels: two stages, of 14² and 7² cells."""
        return cls(28, 1, classes, patch=2, d_model=32, depths=(2, 2), heads=(2, 4))


class PatchMerging(nn.Module):
    """Glue each 2 by 2 cells into one, of twice the features: (b, r, c, m) gives (b, r / 2, c / 2, 2 m).

    Source: Liu et al. 2021, 3.1.

    >>> PatchMerging(8)(torch.zeros(1, 4, 6, 8)).shape
    torch.Size([1, 2, 3, 16])
    """

    def __init__(self, d_model: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * d_model)
        self.reduction = nn.Linear(4 * d_model, 2 * d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the grid of merged cells. Raises ValueError if the grid ``x`` has an odd side."""
        rows, columns = x.shape[1:3]
        if rows % 2 or columns % 2:
            raise ValueError(f"expected a grid with even sides to merge 2 by 2, got {rows} by {columns}")
        quarters = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(quarters, dim=-1)))


class Swin(nn.Module):
    """Stages of Swin blocks, shifted in turn, then the mean of all cells and a linear layer.

    Raises ValueError if the windows do not divide some stage's grid. A grid that is no larger than one window
    is one window, and is not shifted.

    >>> Swin(SwinConfig.small(classes=3))(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 3])
    """

    def __init__(self, config: SwinConfig):
        super().__init__()
        self.config = config
        self.patches = nn.Conv2d(config.channels, config.d_model, config.patch, config.patch)
        self.patches_norm = nn.LayerNorm(config.d_model)
        side, d_model, layers = config.image_size // config.patch, config.d_model, []
        for number, (depth, heads) in enumerate(zip(config.depths, config.heads, strict=True)):
            if number > 0:
                layers.append(PatchMerging(d_model))
                side, d_model = side // 2, 2 * d_model
            layers += _stage(d_model, heads, depth, side, config.window)
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(d_model)
        self.output = nn.Linear(d_model, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (b, classes) of ``images`` (b, channels, image_size, image_size)."""
        return self.output(self.features(images).mean(dim=(1, 2)))

    def features(self, images: Tensor) -> Tensor:
        """Return the last stage's normalised grid (b, r, c, m)."""
        grid = self.patches(images).permute(0, 2, 3, 1)  # (b, r, c, m)
        return self.norm(self.layers(self.patches_norm(grid)))


def _stage(d_model: int, heads: int, depth: int, side: int, window: int) -> list[SwinBlock]:
    """Build the blocks of one stage, whose grid is ``side`` by ``side``; every second one is shifted."""
    if side <= window:
        return [SwinBlock(d_model, heads, side) for _ in range(depth)]
    if side % window:
        raise ValueError(
            f"expected windows of {window} to divide every stage's grid, got a side of {side}; "
            "choose another image size, patch or window"
        )
    return [SwinBlock(d_model, heads, window, window // 2 * (block % 2)) for block in range(depth)]
