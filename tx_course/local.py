"""Neighbourhoods drawn in advance: local, strided, global and block-sparse (level 9).

Axes: b batch, h heads, q query positions, k key positions, n positions of either. Masks are boolean, True
meaning "may attend"; join them with ``&`` and ``|``. A mask changes who is heard, not what it costs:
``attend`` still computes every score. ``local_attention`` computes the near ones only.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tx_course.attention import attend


def local_mask(length: int, reach: int) -> Tensor:
    """Hear the positions at most ``reach`` away, on both sides: (length, length) (Beltagy et al. 2020, 3.1).

    >>> local_mask(4, reach=1).int().tolist()
    [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    """
    place = torch.arange(length)
    return (place[:, None] - place).abs() <= reach


def strided_mask(length: int, stride: int) -> Tensor:
    """Hear every position a multiple of ``stride`` away: (length, length) (Child et al. 2019).

    With a local mask of the same reach, everything is at most two steps from everything.

    >>> strided_mask(4, stride=2).int().tolist()
    [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]
    """
    place = torch.arange(length)
    return (place[:, None] - place) % stride == 0


def global_mask(length: int, chosen: list[int]) -> Tensor:
    """Let the ``chosen`` positions hear all and be heard by all: (length, length) (Beltagy et al. 2020, 3.1).

    >>> global_mask(3, chosen=[0]).int().tolist()
    [[1, 1, 1], [1, 0, 0], [1, 0, 0]]
    """
    special = torch.zeros(length, dtype=torch.bool)
    special[chosen] = True
    return special[:, None] | special


def block_mask(layout: Tensor, block: int) -> Tensor:
    """Blow each entry of a boolean ``layout`` (blocks, blocks) up to ``block`` by ``block`` pairs: (q, k).

    >>> block_mask(torch.tensor([[True, False], [True, True]]), block=2)[0].int().tolist()
    [1, 1, 0, 0]
    """
    return layout.repeat_interleave(block, dim=-2).repeat_interleave(block, dim=-1)


def local_attention(query: Tensor, key: Tensor, value: Tensor, reach: int) -> Tensor:
    """Attend to the positions at most ``reach`` away, in time and memory linear in their number n.

    ``query`` and ``key`` (b, h, n, d), ``value`` (b, h, n, e) give (b, h, n, e), the numbers of ``attend``
    with ``local_mask``. Positions are cut into blocks of ``reach``; a block hears itself and its two
    neighbours (Beltagy et al. 2020, 3.1). Raises ValueError if ``reach`` is not positive or queries and
    keys differ in number.

    >>> value = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
    >>> local_attention(torch.zeros(4, 1), torch.zeros(4, 1), value, reach=1).tolist()
    [[1.0], [2.0], [4.0], [5.0]]
    """
    if reach < 1 or query.size(-2) != key.size(-2):
        raise ValueError(
            "expected a reach of at least 1 and as many queries as keys, "
            f"got reach={reach}, {query.size(-2)} queries and {key.size(-2)} keys"
        )
    length = query.size(-2)
    rest = -length % reach
    query = F.pad(query, (0, 0, 0, rest)).unflatten(-2, (-1, reach))  # (b, h, blocks, reach, d)
    key, value = (_with_neighbours(x, reach, rest) for x in (key, value))  # (b, h, blocks, 3 reach, d)
    mask = _near(length, reach, query.size(-3), query.device)
    return attend(query, key, value, mask).flatten(-3, -2)[..., :length, :]


def _with_neighbours(x: Tensor, reach: int, rest: int) -> Tensor:
    """Return for each block of positions of ``x`` those of the block before, its own and the next."""
    x = F.pad(x, (0, 0, reach, rest + reach))
    return x.unfold(-2, 3 * reach, reach).transpose(-2, -1)


def _near(length: int, reach: int, blocks: int, device: torch.device) -> Tensor:
    """Return which of the 3 · ``reach`` keys each query may hear, (blocks, reach, 3 · reach)."""
    query = torch.arange(blocks * reach, device=device).view(blocks, reach, 1)
    start = reach * torch.arange(blocks, device=device).view(blocks, 1, 1)
    key = start + torch.arange(-reach, 2 * reach, device=device)  # (blocks, 1, 3 reach)
    real = (key >= 0) & (key < length) | (query >= length)  # the padding's own queries may hear anything
    return ((query - key).abs() <= reach) & real
