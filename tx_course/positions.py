"""Positions inside the score: rotations (RoPE) and a penalty for distance (ALiBi) (level 9).

Axes: b batch, h heads, q query positions, k key positions, d features per head. Scores are in nats. Both see
only how far apart two positions are, so nothing is added to the words themselves.
"""

import torch
from torch import Tensor


def rope(x: Tensor, position: Tensor | None = None, base: float = 10000.0) -> Tensor:
    """Rotate each pair of neighbouring features of ``x`` (…, q, d) by an angle that grows with its position.

    ``position`` (q) is 0, 1, 2, … unless given. Pair i turns base^(−2i / d) radians per position. Rotate
    queries and keys, and their inner product depends on content and on the distance alone. Source: Su et
    al. 2021, RoFormer, eq. 34. Many models pair feature i with i + d/2 instead; that is the same with the
    features in another order. Raises ValueError if d is odd.

    >>> rope(torch.tensor([[1.0, 0.0], [1.0, 0.0]])).round(decimals=2).tolist()
    [[1.0, 0.0], [0.5400000214576721, 0.8399999737739563]]
    """
    if x.size(-1) % 2:
        raise ValueError(f"expected an even number of features to rotate in pairs, got {x.size(-1)}")
    if position is None:
        position = torch.arange(x.size(-2), device=x.device)
    pair = torch.arange(0, x.size(-1), 2, device=x.device, dtype=torch.float64)
    angle = position[:, None] * base ** (-pair / x.size(-1))  # (q, d / 2), radians
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def alibi_slopes(heads: int) -> Tensor:
    """Return how fast each head's attention falls with distance, (h), in nats per position, float64.

    For a power of two, 2^(−8 / h), 2^(−16 / h), …; otherwise the slopes of the next smaller power of two, and
    then every second one of the next larger (Press et al. 2022, section 3, and their code).

    >>> alibi_slopes(2).tolist()
    [0.0625, 0.00390625]
    """
    power = 2 ** (heads.bit_length() - 1)  # the largest power of two that is not above heads
    slopes = 2.0 ** (-8 * torch.arange(1, power + 1, dtype=torch.float64) / power)
    between = 2.0 ** (-4 * (2 * torch.arange(heads - power, dtype=torch.float64) + 1) / power)
    return torch.cat([slopes, between])


def alibi(heads: int, queries: int, keys: int | None = None) -> Tensor:
    """Return the bias −slope · |i − j| in nats, (h, q, k), float64, to be added to the scores by ``attend``.

    ``keys`` is ``queries`` unless given; the last query stands where the last key does, as when decoding with
    a cache. Source: Press et al. 2022, section 3.

    >>> alibi(2, 3)[0].tolist()
    [[-0.0, -0.0625, -0.125], [-0.0625, -0.0, -0.0625], [-0.125, -0.0625, -0.0]]
    """
    key = torch.arange(queries if keys is None else keys)
    query = key[-queries:]
    distance = (query[:, None] - key).abs()  # (q, k)
    return -alibi_slopes(heads)[:, None, None] * distance
