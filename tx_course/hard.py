"""Normalisers that leave most keys unheard: sampling one key, and sparsemax (level 9).

Axes: b batch, h heads, q query positions, k key positions, d features per head. Scores are in nats.

Soft attention averages; hard attention draws one key by the same weights. A draw has no gradient, so three
estimators are here: the score function (unbiased, noisy), straight-through (biased, quiet) and Gumbel-softmax
(biased, less so as the temperature falls, and noisier). Generators make the draws repeatable.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tx_course.attention import attention_weights, scaled_dot


def sample_key(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one key for each query with the probabilities ``weights`` (…, q, k): indices (…, q).

    >>> sample_key(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).tolist()
    [1, 0]
    """
    flat = weights.detach().flatten(0, -2)  # multinomial takes a matrix
    return torch.multinomial(flat, 1, generator=generator).view(weights.shape[:-1])


def hard_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Hear one key only, drawn with the probabilities that ``attend`` would use as weights (Xu et al. 2015).

    ``query`` (b, h, q, d), ``key`` (b, h, k, d), ``value`` (b, h, k, e) and ``mask`` are as in ``attend``.
    The result is the drawn values (b, h, q, e), whose mean over draws is ``attend``'s, and the
    log-probabilities of the draws (b, h, q), in nats, which ``score_function_loss`` needs: no gradient
    reaches the query through the values.

    >>> value = torch.tensor([[3.0], [7.0]])
    >>> drawn, log_probability = hard_attention(torch.zeros(1, 4), torch.zeros(2, 4), value)
    >>> drawn.item() in (3.0, 7.0), round(log_probability.exp().item(), 4)
    (True, 0.5)
    """
    weights = attention_weights(query, key, mask)  # (b, h, q, k)
    index = sample_key(weights, generator)[..., None]  # (b, h, q, 1)
    value = value.expand(*weights.shape[:-2], *value.shape[-2:])  # (b, h, k, e)
    drawn = value.gather(-2, index.expand(*index.shape[:-1], value.size(-1)))  # (b, h, q, e)
    return drawn, weights.gather(-1, index)[..., 0].log()


def score_function_loss(cost: Tensor, log_probability: Tensor, baseline: float | Tensor = 0.0) -> Tensor:
    """Return a loss whose value is ``cost`` and whose gradient is right on average (Williams 1992).

    ``cost`` (…) is what each draw led to, ``log_probability`` (…) that of the draw, in nats. The gradient is
    that of the cost itself plus (cost − ``baseline``) · ∇ log-probability. A baseline that does not depend on
    the draw leaves the mean of the gradient where it is and can take away most of its variance.

    >>> chance = torch.tensor(0.5).log().requires_grad_()
    >>> score_function_loss(torch.tensor(3.0), chance, baseline=1.0).backward()
    >>> chance.grad.item()
    2.0
    """
    advantage = (cost - baseline).detach() * log_probability
    return cost + advantage - advantage.detach()


def straight_through(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one-hot weights (…, q, k) that pass gradients on as if they were ``weights`` (Bengio et al. 2013).

    >>> soft = torch.tensor([[0.0, 1.0]], requires_grad=True)
    >>> straight_through(soft).tolist()
    [[0.0, 1.0]]
    """
    one_hot = F.one_hot(sample_key(weights, generator), weights.size(-1)).to(weights.dtype)
    return one_hot - weights.detach() + weights


def gumbel_softmax(scores: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw weights (…, q, k) that are nearly one-hot yet differentiable in ``scores`` (Jang et al. 2017).

    Adding Gumbel noise and taking the largest draws a key with the softmax's probabilities; a softmax at a
    low ``temperature`` is a soft version of "the largest". A score of −∞ is never drawn. Raises ValueError
    if ``temperature`` is not positive.

    >>> gumbel_softmax(torch.tensor([[0.0, -torch.inf]]), temperature=0.5).tolist()
    [[1.0, 0.0]]
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    exponential = torch.empty_like(scores).exponential_(generator=generator)
    return ((scores - exponential.log()) / temperature).softmax(dim=-1)  # −log of an exponential is Gumbel


def sparsemax(scores: Tensor, dim: int = -1) -> Tensor:
    """Project ``scores`` onto the probabilities: like softmax, but far-off keys get exactly 0.

    The result (same shape) is non-negative, sums to 1 over ``dim`` and is the nearest such point to the
    scores. A score of −∞ gets 0. Source: Martins & Astudillo 2016, algorithm 1.

    >>> sparsemax(torch.tensor([1.0, 0.5, -1.0])).tolist()
    [0.75, 0.25, 0.0]
    """
    scores = scores.movedim(dim, -1)
    ordered = scores.sort(dim=-1, descending=True).values
    rank = torch.arange(1, scores.size(-1) + 1, device=scores.device, dtype=scores.dtype)
    excess = ordered.cumsum(dim=-1) - 1  # what the first `rank` scores have more than 1 in all
    support = (rank * ordered > excess).sum(dim=-1, keepdim=True)  # how many keys are heard
    threshold = excess.gather(-1, support - 1) / support
    return (scores - threshold).clamp(min=0).movedim(-1, dim)


def sparsemax_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend with sparsemax in the place of softmax; arguments and shapes as in ``attend``.

    >>> value = torch.tensor([[1.0], [5.0]])
    >>> sparsemax_attention(torch.ones(1, 1), torch.tensor([[9.0], [0.0]]), value).item()
    1.0
    """
    scores = scaled_dot(query, key)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return sparsemax(scores) @ value
