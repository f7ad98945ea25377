"""Attention is a weighted average (level 2). Every later level is built on ``attend``.

Axes: b batch, h heads, q query positions, k key positions, d features per head. Leading axes (b, h) may be
any number of axes, or none, and broadcast against each other. Masks are boolean, True meaning "may attend".
Scores are in nats: a score larger by log 2 means twice the weight.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Score = Callable[[Tensor, Tensor], Tensor]


def softmax(x: Tensor, dim: int = -1, temperature: float = 1.0) -> Tensor:
    """Turn scores (in nats, any shape) into weights of the same shape that are non-negative and sum to 1 over
    ``dim``.

    The largest score is subtracted first. That leaves the result unchanged and keeps ``exp`` from
    overflowing. A high ``temperature`` evens the weights out; a low one lets the largest score take all.
    Raises ValueError if ``temperature`` is not positive.

    >>> softmax(torch.tensor([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    x = x / temperature
    weights = (x - x.detach().amax(dim, keepdim=True)).exp()
    return weights / weights.sum(dim, keepdim=True)


def dot(query: Tensor, key: Tensor) -> Tensor:
    """Score by the inner product: ``query`` (b, h, q, d), ``key`` (b, h, k, d) give (b, h, q, k) (Luong et
    al. 2015).

    >>> dot(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])).item()
    11.0
    """
    return query @ key.transpose(-2, -1)


def scaled_dot(query: Tensor, key: Tensor) -> Tensor:
    """Score by the inner product divided by √d, as shapes of ``dot`` (Vaswani et al. 2017, eq. 1).

    The query is scaled before the product, because q·d numbers are fewer than q·k.

    >>> scaled_dot(torch.full((1, 4), 2.0), torch.ones(1, 4)).item()
    4.0
    """
    return dot(query / math.sqrt(query.size(-1)), key)


def general(query: Tensor, key: Tensor, weight: Tensor) -> Tensor:
    """Score by a bilinear form, qᵀ W k: ``query`` (b, h, q, m), ``key`` (b, h, k, n), ``weight`` (m, n) give
    (b, h, q, k).

    Query and key may have different sizes m and n. Source: Luong et al. 2015.

    >>> general(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]), torch.tensor([[1.0], [10.0]])).item()
    63.0
    """
    return dot(query @ weight, key)


def additive(query: Tensor, key: Tensor, query_weight: Tensor, key_weight: Tensor, readout: Tensor) -> Tensor:
    """Score by a small MLP, vᵀ tanh(W_q q + W_k k) (Bahdanau et al. 2015).

    ``query`` (b, h, q, m), ``key`` (b, h, k, n), ``query_weight`` (a, m), ``key_weight`` (a, n), ``readout``
    v (a) give (b, h, q, k).

    >>> w = torch.eye(2)
    >>> additive(torch.zeros(3, 2), torch.zeros(5, 2), w, w, torch.ones(2)).shape
    torch.Size([3, 5])
    """
    projected_query = (query @ query_weight.T).unsqueeze(-2)  # (b, h, q, 1, a)
    projected_key = (key @ key_weight.T).unsqueeze(-3)  # (b, h, 1, k, a)
    return torch.tanh(projected_query + projected_key) @ readout  # (b, h, q, k)


def concat(query: Tensor, key: Tensor, weight: Tensor, readout: Tensor) -> Tensor:
    """Score the pair glued together, vᵀ tanh(W [q; k]) (Luong et al. 2015).

    ``query`` (b, h, q, m), ``key`` (b, h, k, n), ``weight`` (a, m + n), ``readout`` v (a) give (b, h, q, k).
    With W = [W_q W_k] it is the additive score, and it is computed that way: the glued (b, h, q, k, m + n) is
    never built.

    >>> concat(torch.zeros(3, 2), torch.zeros(5, 4), torch.ones(7, 6), torch.ones(7)).shape
    torch.Size([3, 5])
    """
    query_weight, key_weight = weight.split([query.size(-1), key.size(-1)], dim=-1)
    return additive(query, key, query_weight, key_weight, readout)


SCORES: dict[str, Callable[..., Tensor]] = {
    "dot": dot,
    "general": general,
    "concat": concat,
    "additive": additive,
    "scaled_dot": scaled_dot,
}
"""The family of scores f by name. Those with weights of their own are bound with ``functools.partial`` before
``attend``."""


def _check_mask(mask: Tensor) -> None:
    """Raise unless ``mask`` is boolean and leaves every query at least one key."""
    if mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be boolean (True = may attend), got {mask.dtype}; write `mask > 0` or `mask.bool()`"
        )
    if not mask.any(dim=-1).all():
        raise ValueError(
            "mask hides every key from some query, so its weights would be 0/0; leave each query one key"
        )


def attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    score: Score = scaled_dot,
    bias: Tensor | None = None,
) -> Tensor:
    """Return how much each query attends to each key: the softmax over keys of the scores.

    ``query`` (b, h, q, d), ``key`` (b, h, k, d). Boolean ``mask`` broadcasts to (b, h, q, k), True meaning
    "may attend". ``bias`` (nats) broadcasts to the same shape and is added to the scores. The result (b, h,
    q, k) is non-negative and sums to 1 over k. Half-precision scores are normalised in float32, as the fused
    kernel does. Source: Vaswani et al. 2017, eq. 1.
    Raises ValueError if the mask is not boolean or leaves a query no key.

    >>> attention_weights(torch.zeros(1, 4), torch.zeros(2, 4)).tolist()
    [[0.5, 0.5]]
    """
    scores = score(query, key)  # (b, h, q, k)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        _check_mask(mask)
        scores = scores.masked_fill(~mask, -torch.inf)
    # PyTorch's own kernel gives what ``softmax`` gives, in one pass over memory instead of five.
    if scores.dtype in (torch.float16, torch.bfloat16):
        return torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
    return torch.softmax(scores, dim=-1)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    score: Score = scaled_dot,
    weights: bool = False,
    bias: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Average the values by what the query asks of their keys: y_i = (1 / C_i) · Σ_j f(q_i, k_j) · v_j.

    ``query`` (b, h, q, d), ``key`` (b, h, k, d), ``value`` (b, h, k, e) give (b, h, q, e). Boolean ``mask``
    and ``bias`` (nats) broadcast to (b, h, q, k); True in the mask means "may attend".
    With ``weights=True`` the result is a pair: the average, and the weights (b, h, q, k) of
    ``attention_weights``. When nobody asks for the weights and the score is the scaled dot product, PyTorch's
    fused kernel computes the same numbers (Vaswani et al. 2017, eq. 1). It never stores the weights if values
    are as wide as keys, e = d (Dao et al. 2022).
    Raises ValueError if the mask is not boolean or leaves a query no key, or if keys and values differ in
    number.

    >>> attend(torch.zeros(1, 4), torch.zeros(2, 4), torch.tensor([[1.0], [3.0]])).item()
    2.0
    """
    if key.size(-2) != value.size(-2):
        raise ValueError(f"expected one value per key, got {key.size(-2)} keys and {value.size(-2)} values")
    if weights or score is not scaled_dot:
        w = attention_weights(query, key, mask, score, bias)  # (b, h, q, k)
        return (w @ value, w) if weights else w @ value
    if mask is not None:
        _check_mask(mask)
    if bias is not None:
        mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
    if mask is not None:
        mask = torch.atleast_2d(mask)  # the kernel wants a (q, k) mask or more axes
    # With fewer than four axes PyTorch takes the slow path, which stores the weights.
    four = [x[(None,) * (4 - x.dim())] for x in (query, key, value)]
    output = F.scaled_dot_product_attention(*four, attn_mask=mask)
    axes = max(query.dim(), key.dim(), value.dim())
    return output.reshape(output.shape[-axes:])  # (b, h, q, e)


def nadaraya_watson(query: Tensor, key: Tensor, value: Tensor, bandwidth: float) -> Tensor:
    """Kernel regression with a Gaussian kernel: attention without learned weights.

    ``query`` (q), ``key`` (k), ``value`` (k) give predictions (q). ``bandwidth`` is in the units of ``key``:
    points nearer than that count, points much farther do not. The score is −(q − k)² / (2 · bandwidth²).
    Source: Nadaraya 1964; Watson 1964.
    Raises ValueError if ``bandwidth`` is not positive.

    >>> place, height = torch.tensor([0.0, 1.0]), torch.tensor([2.0, 4.0])
    >>> nadaraya_watson(torch.tensor([0.5]), place, height, bandwidth=1.0).item()
    3.0
    """
    if bandwidth <= 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}")

    def gaussian(query: Tensor, key: Tensor) -> Tensor:
        return -(((query - key.T) / bandwidth) ** 2) / 2  # (q, k)

    return attend(query[:, None], key[:, None], value[:, None], score=gaussian)[:, 0]
