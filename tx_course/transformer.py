"""Attention is all you need (level 3): positions, the two kinds of layer, and the Transformer.

Axes: b batch, s source positions, t target positions, q positions of either, m features of the model. Masks
are boolean, True meaning "may attend". The heads are in ``multi_head.py``; the loss and decoding in
``translation.py``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.multi_head import MultiHeadAttention, causal_mask, padding_mask


def _frequencies(d_model: int) -> Tensor:
    """Return the radians per position of each sine-cosine pair, (d_model / 2), in float64."""
    if d_model % 2:
        raise ValueError(f"expected an even d_model (a sine and a cosine per frequency), got {d_model}")
    return 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)


def sinusoidal_positions(length: int, d_model: int) -> Tensor:
    """Write each position as sines (even features) and cosines (odd ones) of slower and slower waves.

    The result is (length, d_model), float64; the wavelengths run from 2π to 10000 · 2π positions. Source:
    Vaswani et al. 2017, 3.5.
    Raises ValueError if ``d_model`` is odd.

    >>> sinusoidal_positions(2, 4)[0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    angle = torch.arange(length, dtype=torch.float64)[:, None] * _frequencies(d_model)  # (q, m / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)  # (q, m)


def position_rotation(shift: int, d_model: int) -> Tensor:
    """Return the rotation (m, m) that moves any sinusoidal position by ``shift``: PE(pos + k) = R PE(pos).

    It does not depend on the position, which is why "k words further" is one linear map everywhere. Source:
    Vaswani et al. 2017, 3.5. Raises ValueError if ``d_model`` is odd.

    >>> position = sinusoidal_positions(9, 4)
    >>> torch.allclose(position_rotation(3, 4) @ position[5], position[8])
    True
    """
    angle = shift * _frequencies(d_model)
    cos, sin = angle.cos(), angle.sin()
    blocks = torch.stack([cos, sin, -sin, cos], dim=-1).unflatten(-1, (2, 2))  # (m / 2, 2, 2)
    return torch.block_diag(*blocks)


class PostNorm(nn.Module):
    """Add what a sublayer says, then normalise: norm(x + f(x)), the paper's order (Vaswani et al. 2017, 3.1).

    >>> PostNorm(4)(torch.zeros(1, 4), lambda x: x + 1).tolist()
    [[0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self, d_model: int, dropout: float = 0.0, eps: float = 1e-5):
        super().__init__()
        self.norm = nn.LayerNorm(d_model, eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ``x`` (…, m) after the sublayer, same shape."""
        return self.norm(x + self.dropout(sublayer(x)))


class PreNorm(nn.Module):
    """Normalise what a sublayer hears, then add: x + f(norm(x)), today's order (Xiong et al. 2020).

    The sum itself is never normalised, so a stack of these ends with one more LayerNorm.

    >>> PreNorm(4)(torch.zeros(1, 4), lambda x: x + 1).tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    """

    def __init__(self, d_model: int, dropout: float = 0.0, eps: float = 1e-5):
        super().__init__()
        self.norm = nn.LayerNorm(d_model, eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ``x`` (…, m) after the sublayer, same shape."""
        return x + self.dropout(sublayer(self.norm(x)))


Residual = type[PostNorm] | type[PreNorm]


def final_norm(residual: Residual, d_model: int, eps: float = 1e-5) -> nn.Module:
    """Build what ends a stack of layers: a LayerNorm after ``PreNorm``, nothing after ``PostNorm``.

    >>> final_norm(PostNorm, 4)
    Identity()
    """
    return nn.LayerNorm(d_model, eps) if residual is PreNorm else nn.Identity()


def feed_forward(d_model: int, d_hidden: int, activation: nn.Module | None = None) -> nn.Sequential:
    """Build the layer each position passes through alone: widen, bend (ReLU unless given), narrow.

    >>> feed_forward(4, 16)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """
    return nn.Sequential(nn.Linear(d_model, d_hidden), activation or nn.ReLU(), nn.Linear(d_hidden, d_model))


class EncoderLayer(nn.Module):
    """Listen to the sentence, then think alone: self-attention, then feed-forward (Vaswani et al. 2017, 3.1).

    ``residual`` is ``PostNorm`` or ``PreNorm``; ``dropout`` (a probability) applies to what each sublayer
    adds; ``eps`` is LayerNorm's. With a causal mask the same layer is the block of a GPT.

    >>> EncoderLayer(d_model=8, heads=2, d_hidden=16)(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        d_hidden: int,
        dropout: float = 0.0,
        residual: Residual = PostNorm,
        activation: nn.Module | None = None,
        eps: float = 1e-5,
    ):
        super().__init__()
        self.attention = MultiHeadAttention(d_model, heads)
        self.feed_forward = feed_forward(d_model, d_hidden, activation)
        self.attention_residual = residual(d_model, dropout, eps)
        self.feed_forward_residual = residual(d_model, dropout, eps)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``x`` (b, q, m) after the layer, same shape."""
        x = self.attention_residual(x, lambda x: self.attention(x, mask=mask))
        return self.feed_forward_residual(x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Listen to what is written so far, then to the source, then think alone (Vaswani et al. 2017, 3.1).

    In cross-attention the queries come from the decoder, the keys and values from the encoder's output.
    Arguments as in ``EncoderLayer``.

    >>> DecoderLayer(d_model=8, heads=2, d_hidden=16)(torch.zeros(1, 3, 8), torch.zeros(1, 5, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        d_hidden: int,
        dropout: float = 0.0,
        residual: Residual = PostNorm,
        activation: nn.Module | None = None,
        eps: float = 1e-5,
    ):
        super().__init__()
        self.attention = MultiHeadAttention(d_model, heads)
        self.cross_attention = MultiHeadAttention(d_model, heads)
        self.feed_forward = feed_forward(d_model, d_hidden, activation)
        self.attention_residual = residual(d_model, dropout, eps)
        self.cross_attention_residual = residual(d_model, dropout, eps)
        self.feed_forward_residual = residual(d_model, dropout, eps)

    def forward(
        self, x: Tensor, memory: Tensor, mask: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """Return ``x`` (b, t, m) after hearing itself, and ``memory`` (b, s, m), each under its mask."""
        x = self.attention_residual(x, lambda x: self.attention(x, mask=mask))
        x = self.cross_attention_residual(x, lambda x: self.cross_attention(x, memory, mask=memory_mask))
        return self.feed_forward_residual(x, self.feed_forward)


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a Transformer: the paper's base model unless said otherwise (Vaswani et al. 2017, table 3).

    ``source_vocabulary`` and ``target_vocabulary`` are numbers of tokens, ``pad`` the token that fills up
    short sentences in both.

    >>> TransformerConfig(100, 100).layers
    6
    """

    source_vocabulary: int
    target_vocabulary: int
    d_model: int = 512
    heads: int = 8
    layers: int = 6
    d_hidden: int = 2048
    dropout: float = 0.1
    residual: Residual = PostNorm
    pad: int = 0

    @classmethod
    def small(cls, source_vocabulary: int, target_vocabulary: int) -> "TransformerConfig":
        """Return the course's size: two pre-norm layers of 64 features, which train in a minute."""
        return cls(source_vocabulary, target_vocabulary, 64, 4, 2, 256, dropout=0.0, residual=PreNorm)


class Transformer(nn.Module):
    """Encoder and decoder, attention throughout (Vaswani et al. 2017).

    The target's embedding is also the last linear layer, as in the paper (3.4).

    >>> model = Transformer(TransformerConfig.small(source_vocabulary=10, target_vocabulary=12))
    >>> model(torch.tensor([[3, 4, 5]]), torch.tensor([[1, 6]])).shape
    torch.Size([1, 2, 12])
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        sizes = (config.d_model, config.heads, config.d_hidden, config.dropout, config.residual)
        self.source_embedding = nn.Embedding(config.source_vocabulary, config.d_model)
        self.target_embedding = nn.Embedding(config.target_vocabulary, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(config.layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(config.layers))
        self.encoder_norm = final_norm(config.residual, config.d_model)
        self.decoder_norm = final_norm(config.residual, config.d_model)
        for weight in [p for p in self.parameters() if p.dim() > 1]:
            nn.init.xavier_uniform_(weight)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=config.d_model**-0.5)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return logits (b, t, vocabulary) of each next token, all positions at once (teacher forcing).

        ``source`` (b, s) and ``target`` (b, t) are tokens; position i of the result has seen ``target`` up to
        and including i, so its answer is ``target`` shifted by one.
        """
        return self.decode(target, self.encode(source), padding_mask(source, self.config.pad))

    def encode(self, source: Tensor) -> Tensor:
        """Return what the encoder has to say about each token of ``source`` (b, s): (b, s, m)."""
        mask = padding_mask(source, self.config.pad)
        x = self._embed(source, self.source_embedding)
        for layer in self.encoder:
            x = layer(x, mask)
        return self.encoder_norm(x)

    def decode(self, target: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Return logits (b, t, vocabulary) after each token of ``target`` (b, t), given the encoder's
        ``memory`` (b, s, m) and who may be heard in it, ``memory_mask`` (b, 1, 1, s).
        """
        mask = causal_mask(target.size(1), target.device) & padding_mask(target, self.config.pad)
        x = self._embed(target, self.target_embedding)
        for layer in self.decoder:
            x = layer(x, memory, mask, memory_mask)
        return F.linear(self.decoder_norm(x), self.target_embedding.weight)

    def _embed(self, tokens: Tensor, embedding: nn.Embedding) -> Tensor:
        x = embedding(tokens) * math.sqrt(self.config.d_model)  # (b, q, m), features of variance 1
        return self.dropout(x + sinusoidal_positions(tokens.size(1), self.config.d_model).to(x))
