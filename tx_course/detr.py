"""Queries are objects (level 6): DETR, an encoder-decoder that answers with a set (Carion et al. 2020).

Axes: b batch, q object queries (slots an object may fill), k cells of the feature map, m features of the
model. The boxes, the matching and the loss are in ``detection.py``.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.multi_head import MultiHeadAttention
from tx_course.transformer import PostNorm, PreNorm, Residual, feed_forward, final_norm


def grid_positions(rows: int, columns: int, d_model: int) -> Tensor:
    """Write each cell's row, then its column, as waves of half the features each: (rows · columns, d_model).

    As ``sinusoidal_positions``, but a position is first scaled to (0, 2π], so that a map of any size spans
    one turn of the slowest wave. Float64, in reading order. Source: Carion et al. 2020 and its code.
    Raises ValueError if ``d_model`` is not divisible by 4.

    >>> grid_positions(2, 3, 8).shape
    torch.Size([6, 8])
    """
    if d_model % 4:
        raise ValueError(f"expected d_model divisible by 4 (two axes, sine and cosine), got {d_model}")
    wave = 10000.0 ** (-torch.arange(0, d_model // 2, 2, dtype=torch.float64) / (d_model // 2))

    def waves(length: int) -> Tensor:
        place = 2 * math.pi * torch.arange(1, length + 1, dtype=torch.float64) / (length + 1e-6)
        angle = place[:, None] * wave  # (length, m / 4)
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # (length, m / 2)

    by_row = waves(rows)[:, None].expand(rows, columns, -1)
    by_column = waves(columns).expand(rows, columns, -1)
    return torch.cat([by_row, by_column], dim=-1).flatten(0, 1)


class DetrEncoderLayer(nn.Module):
    """An encoder layer that adds positions to queries and keys, never to values (Carion et al. 2020).

    >>> DetrEncoderLayer(8, heads=2, d_hidden=16)(torch.zeros(1, 6, 8), torch.zeros(6, 8)).shape
    torch.Size([1, 6, 8])
    """

    def __init__(
        self, d_model: int, heads: int, d_hidden: int, dropout: float = 0.0, residual: Residual = PostNorm
    ):
        super().__init__()
        self.attention = MultiHeadAttention(d_model, heads)
        self.feed_forward = feed_forward(d_model, d_hidden)
        self.attention_residual = residual(d_model, dropout)
        self.feed_forward_residual = residual(d_model, dropout)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Return ``x`` (b, k, m), at the places ``position`` (k, m), after the layer."""
        x = self.attention_residual(x, lambda x: self.attention(x + position, x + position, x))
        return self.feed_forward_residual(x, self.feed_forward)


class DetrDecoderLayer(nn.Module):
    """A decoder layer for a set: no causal mask, positions as in the encoder (Carion et al. 2020).

    >>> layer = DetrDecoderLayer(8, heads=2, d_hidden=16)
    >>> layer(torch.zeros(1, 3, 8), torch.zeros(1, 6, 8), torch.zeros(6, 8), torch.zeros(3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self, d_model: int, heads: int, d_hidden: int, dropout: float = 0.0, residual: Residual = PostNorm
    ):
        super().__init__()
        self.attention = MultiHeadAttention(d_model, heads)
        self.cross_attention = MultiHeadAttention(d_model, heads)
        self.feed_forward = feed_forward(d_model, d_hidden)
        self.attention_residual = residual(d_model, dropout)
        self.cross_attention_residual = residual(d_model, dropout)
        self.feed_forward_residual = residual(d_model, dropout)

    def forward(self, x: Tensor, memory: Tensor, position: Tensor, query: Tensor) -> Tensor:
        """Return the objects ``x`` (b, q, m) after hearing each other and the image ``memory`` (b, k, m).

        ``position`` (k, m) tells the image's cells apart, ``query`` (q, m) the objects.
        """
        x = self.attention_residual(x, lambda x: self.attention(x + query, x + query, x))
        x = self.cross_attention_residual(
            x, lambda x: self.cross_attention(x + query, memory + position, memory)
        )
        return self.feed_forward_residual(x, self.feed_forward)


@dataclass(frozen=True)
class DetrConfig:
    """Sizes of a DETR for ``classes`` kinds of objects: the paper's unless said otherwise.

    ``features`` is the number of features that the backbone gives each cell; ResNet-50's has 2048. Source:
    Carion et al. 2020.

    >>> DetrConfig(classes=91).queries
    100
    """

    classes: int
    features: int = 2048
    d_model: int = 256
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 6
    d_hidden: int = 2048
    queries: int = 100
    dropout: float = 0.1
    residual: Residual = PostNorm

    @classmethod
    def small(cls, classes: int) -> "DetrConfig":
        """Return the course's size, for the features of ``small_backbone`` and up to six objects an image."""
        return cls(classes, 64, 64, 4, 2, 2, 128, queries=6, dropout=0.0, residual=PreNorm)


def small_backbone(channels: int = 1) -> nn.Sequential:
    """Build four convolutions that turn 64 by 64 pixels into 8 by 8 cells of 64 features.

    >>> small_backbone()(torch.zeros(2, 1, 64, 64)).shape
    torch.Size([2, 64, 8, 8])
    """
    sizes = [(channels, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1)]
    layers = []
    for d_in, d_out, stride in sizes:
        layers += [nn.Conv2d(d_in, d_out, 3, stride, 1, bias=False), nn.BatchNorm2d(d_out), nn.ReLU()]
    return nn.Sequential(*layers)


class Detr(nn.Module):
    """Find all objects at once: a backbone, an encoder over its cells, a decoder over object queries.

    ``backbone`` turns images into maps (b, features, rows, columns). Each query is a learned vector that
    stands for no class in advance; the queries hear each other, so they need not name one object twice.
    Source: Carion et al. 2020.

    >>> model = Detr(DetrConfig.small(classes=3), small_backbone())
    >>> logits, boxes = model(torch.zeros(2, 1, 64, 64))
    >>> logits.shape, boxes.shape
    (torch.Size([2, 6, 4]), torch.Size([2, 6, 4]))
    """

    def __init__(self, config: DetrConfig, backbone: nn.Module):
        super().__init__()
        self.config = config
        sizes = (config.d_model, config.heads, config.d_hidden, config.dropout, config.residual)
        self.backbone = backbone
        self.project = nn.Linear(config.features, config.d_model)
        self.encoder = nn.ModuleList(DetrEncoderLayer(*sizes) for _ in range(config.encoder_layers))
        self.encoder_norm = final_norm(config.residual, config.d_model)
        self.decoder = nn.ModuleList(DetrDecoderLayer(*sizes) for _ in range(config.decoder_layers))
        self.decoder_norm = nn.LayerNorm(config.d_model)  # also after post-norm, as the paper's code has it
        self.queries = nn.Parameter(torch.randn(config.queries, config.d_model))
        self.label = nn.Linear(config.d_model, config.classes + 1)
        self.box = nn.Sequential(
            feed_forward(config.d_model, config.d_model), nn.ReLU(), nn.Linear(config.d_model, 4)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (b, q, classes + 1), the last "no object", and boxes (b, q, 4) of ``images``."""
        objects = self.decode(*self.encode(images))
        return self.label(objects), self.locate(objects)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the encoder has to say about each cell (b, k, m), and the cells' positions (k, m)."""
        grid = self.backbone(images)  # (b, features, rows, columns)
        x = self.project(grid.flatten(2).transpose(1, 2))  # (b, k, m)
        position = grid_positions(*grid.shape[2:], self.config.d_model).to(x)
        for layer in self.encoder:
            x = layer(x, position)
        return self.encoder_norm(x), position

    def decode(self, memory: Tensor, position: Tensor) -> Tensor:
        """Return the objects' features (b, q, m), read from the encoder's ``memory`` (b, k, m)."""
        x = memory.new_zeros(len(memory), *self.queries.shape)
        for layer in self.decoder:
            x = layer(x, memory, position, self.queries)
        return self.decoder_norm(x)

    def locate(self, objects: Tensor) -> Tensor:
        """Return the boxes (b, q, 4) of ``objects`` (b, q, m)."""
        return self.box(objects).sigmoid()


class AnchoredDetr(Detr):
    """A DETR whose queries start at places of their own, spread over the image, and which trains faster.

    A query predicts how far its box is from its anchor, a learned place (q, 2) in logits, instead of from
    the middle of the image (the idea of reference points; Zhu et al. 2021).

    >>> model = AnchoredDetr(DetrConfig.small(classes=3), small_backbone())
    >>> model.anchors.sigmoid().mean(0).tolist()
    [0.5, 0.5]
    """

    def __init__(self, config: DetrConfig, backbone: nn.Module):
        super().__init__(config, backbone)
        columns = math.ceil(math.sqrt(config.queries))
        rows = math.ceil(config.queries / columns)
        place = torch.arange(config.queries)
        across, down = (place % columns + 0.5) / columns, (place // columns + 0.5) / rows
        self.anchors = nn.Parameter(torch.stack([across, down], dim=1).logit())
        with torch.no_grad():
            self.box[-1].weight.mul_(0.1)  # start near the anchors,
            self.box[-1].bias.copy_(torch.tensor([0, 0, -1.2, -1.2]))  # with sides of a quarter of the image

    def locate(self, objects: Tensor) -> Tensor:
        """Return the boxes (b, q, 4) of ``objects`` (b, q, m), relative to the anchors."""
        return (self.box(objects) + F.pad(self.anchors, (0, 2))).sigmoid()
