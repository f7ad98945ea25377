"""Patches are words (level 6): the Vision Transformer.

Axes: b batch, c channels, then rows and columns of pixels; n patches in reading order, t tokens ([CLS] first,
then the patches), m features of the model.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tx_course.transformer import EncoderLayer, PreNorm


def patchify(images: Tensor, size: int) -> Tensor:
    """Cut images (b, c, rows, columns) into patches of ``size`` by ``size`` pixels: (b, n, c · size · size).

    Patches come in reading order; a patch's numbers are its channels, each row by row, which is the order of
    a convolution's weights. So patchify and a linear layer are a convolution with that kernel and stride.
    Raises ValueError if the sides do not divide into patches.

    >>> patchify(torch.arange(8).view(1, 1, 2, 4), size=2).tolist()
    [[[0, 1, 4, 5], [2, 3, 6, 7]]]
    """
    rows, columns = images.shape[-2:]
    if rows % size or columns % size:
        raise ValueError(f"expected sides divisible by the patch size {size}, got {rows} by {columns} pixels")
    grid = images.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # (b, c, R, size, C, size)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (b, n, c · size · size)


def unpatchify(patches: Tensor, size: int, rows: int, columns: int) -> Tensor:
    """Put patches (b, n, c · size · size) back together: images (b, c, ``rows``, ``columns``) in pixels.

    The inverse of ``patchify``. Raises ValueError if n patches of that size do not make such an image.

    >>> image = torch.arange(8).view(1, 1, 2, 4)
    >>> torch.equal(unpatchify(patchify(image, size=2), size=2, rows=2, columns=4), image)
    True
    """
    if patches.size(1) * size * size != rows * columns or rows % size:
        raise ValueError(
            f"expected {size} by {size} patches that fill {rows} by {columns} pixels, got {patches.size(1)}"
        )
    grid = patches.unflatten(2, (-1, size, size)).unflatten(1, (rows // size, -1))  # (b, R, C, c, size, size)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), -1, rows, columns)


@dataclass(frozen=True)
class VitConfig:
    """Sizes of a Vision Transformer: the paper's ViT-B/16 unless said otherwise.

    ``image_size`` and ``patch`` are sides in pixels; ``position_std`` is the spread of the first position
    embeddings, ``eps`` LayerNorm's. Source: Dosovitskiy et al. 2021, table 1.

    >>> config = VitConfig()
    >>> config.layers, config.patches
    (12, 196)
    """

    image_size: int = 224
    channels: int = 3
    classes: int = 1000
    patch: int = 16
    d_model: int = 768
    heads: int = 12
    layers: int = 12
    d_hidden: int = 3072
    dropout: float = 0.1
    position_std: float = 0.02
    eps: float = 1e-6

    @property
    def patches(self) -> int:
        """The number of patches of one image."""
        return (self.image_size // self.patch) ** 2

    @classmethod
    def small(cls, classes: int = 10) -> "VitConfig":
        """Return the course's size, for grey images of 28 by 28 pixels: 49 patches, two layers.

        Positions start as large as the patches' features, so that few images are enough to learn to use them.
        """
        return cls(28, 1, classes, 4, 64, 4, 2, 128, dropout=0.0, position_std=0.5)


class VisionTransformer(nn.Module):
    """Read an image as a sentence of patches (Dosovitskiy et al. 2021, eq. 1 to 4).

    Cut into patches, project each, put a learned [CLS] token in front, add a learned vector for each
    position, and encode as in level 3 (pre-norm, GELU). The class is read from [CLS]. Raises ValueError if
    the image does not divide into patches.

    >>> model = VisionTransformer(VitConfig.small(classes=3))
    >>> model(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 3])
    """

    def __init__(self, config: VitConfig):
        super().__init__()
        if config.image_size % config.patch:
            raise ValueError(
                f"expected an image size divisible by the patch, got {config.image_size} and {config.patch}"
            )
        self.config = config
        self.patch_embedding = nn.Linear(config.channels * config.patch**2, config.d_model)
        self.cls = nn.Parameter(torch.zeros(config.d_model))
        self.positions = nn.Parameter(torch.empty(1 + config.patches, config.d_model))
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                config.d_model, config.heads, config.d_hidden, config.dropout, PreNorm, nn.GELU(), config.eps
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.d_model, config.eps)
        self.output = nn.Linear(config.d_model, config.classes)
        nn.init.normal_(self.positions, std=config.position_std)
        nn.init.normal_(self.cls, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (b, classes) of ``images`` (b, c, rows, columns)."""
        return self.output(self.features(images)[:, 0])

    def features(self, images: Tensor) -> Tensor:
        """Return the normalised features (b, t, m) of [CLS] and of each patch."""
        x = self.embed(images)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def embed(self, images: Tensor) -> Tensor:
        """Return what the first layer hears, (b, t, m): [CLS] and the projected patches, with positions."""
        patches = self.patch_embedding(patchify(images, self.config.patch))  # (b, n, m)
        cls = self.cls.expand(len(images), 1, -1)
        return self.dropout(torch.cat([cls, patches], dim=1) + self.positions)
