"""Many heads, and the masks that say who may be heard (level 3).

Axes: b batch, h heads, q query positions, k key positions, d features per head, m features of the model
(d_model = h · d). Masks are boolean, True meaning "may attend", and broadcast to (b, h, q, k).
"""

import torch
from torch import Tensor, nn

from tx_course import attention


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Cut the features (b, q, h · d) into heads (b, h, q, d), without copying.

    Cut first, then exchange the axes: a ``view`` straight to (b, h, q, d) has the right shape and mixes the
    positions.
    Raises ValueError if the features do not divide into ``heads``.

    >>> split_heads(torch.tensor([[[1, 2], [3, 4]]]), heads=2).tolist()
    [[[[1], [3]], [[2], [4]]]]
    """
    if x.size(-1) % heads:
        raise ValueError(f"expected features divisible by {heads} heads, got {x.size(-1)}")
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)  # (b, h, q, d)


def merge_heads(x: Tensor) -> Tensor:
    """Glue the heads (b, h, q, d) back together, (b, q, h · d): the inverse of ``split_heads``.

    >>> merge_heads(torch.tensor([[[[1], [3]], [[2], [4]]]])).tolist()
    [[[1, 2], [3, 4]]]
    """
    return x.transpose(-3, -2).flatten(-2)  # (b, q, m)


class MultiHeadAttention(nn.Module):
    """Attend several times at once, each head with its own view of the features (Vaswani et al. 2017, 3.2.2).

    Each head works on d = d_model / heads features, so that many heads cost what one would. Raises ValueError
    if ``d_model`` does not divide into ``heads``.

    >>> attend = MultiHeadAttention(d_model=8, heads=2)
    >>> attend(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, d_model: int, heads: int):
        super().__init__()
        if d_model % heads:
            raise ValueError(f"expected d_model divisible by {heads} heads, got d_model={d_model}")
        self.heads = heads
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
        weights: bool = False,
        bias: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return what each query position hears, (b, q, m), from ``query`` (b, q, m).

        ``key`` (b, k, m) is ``query`` unless given (self-attention); ``value`` (b, k, m) is ``key`` unless
        given. ``mask`` and ``bias`` (nats) broadcast to (b, h, q, k). With ``weights=True`` the result is a
        pair whose second part is every head's weights (b, h, q, k).
        """
        key = query if key is None else key
        value = key if value is None else value
        heard = attention.attend(
            split_heads(self.query(query), self.heads),
            split_heads(self.key(key), self.heads),
            split_heads(self.value(value), self.heads),
            mask=mask,
            weights=weights,
            bias=bias,
        )  # (b, h, q, d)
        if weights:
            return self.output(merge_heads(heard[0])), heard[1]
        return self.output(merge_heads(heard))  # (b, q, m)


def causal_mask(length: int, device: torch.device | str | None = None) -> Tensor:
    """Let each position hear itself and the past: a (length, length) triangle of True, q rows and k columns.

    >>> causal_mask(3).int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def padding_mask(tokens: Tensor, pad: int = 0) -> Tensor:
    """Let every position hear the real ``tokens`` (b, k) and none of the padding: (b, 1, 1, k).

    Join masks with ``&``.

    >>> padding_mask(torch.tensor([[5, 7, 0]])).tolist()
    [[[[True, True, False]]]]
    """
    return (tokens != pad)[:, None, None, :]
