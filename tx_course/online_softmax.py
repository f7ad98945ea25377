"""Exact attention that never stores the matrix of weights, in training too (level 9).

Axes: b batch, h heads, q query positions, k key positions, d features per head, e features of the values.

A softmax needs its sum before its first weight, or so it seems. Keep a running maximum and a running sum, and
put right what was added up so far whenever the maximum moves (Milakov & Gimelshein 2018): then keys can come
block by block. The backward pass stores nothing but one number per query and works the weights out again
(Dao et al. 2022, FlashAttention). PyTorch's fused kernel, which ``attend`` uses, does the same in C++.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 128  # keys


def online_softmax_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, block: int = BLOCK
) -> Tensor:
    """Return ``attend(query, key, value, mask)``, (b, h, q, e), reading the keys ``block`` at a time.

    ``query`` (b, h, q, d), ``key`` (b, h, k, d), ``value`` (b, h, k, e); all three have the same leading
    axes. A boolean ``mask`` broadcasts to (b, h, q, k). Memory beyond inputs and result is q · block scores
    per head. The gradient itself cannot be differentiated again. Raises ValueError if the mask is not
    boolean or leaves a query no key, if ``block`` is not positive, or if the leading axes differ.

    >>> value = torch.tensor([[1.0], [3.0]])
    >>> online_softmax_attention(torch.zeros(1, 4), torch.zeros(2, 4), value, block=1).item()
    2.0
    """
    if block < 1:
        raise ValueError(f"expected a block of at least 1 key, got {block}")
    if not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(f"expected query, key and value with equal leading axes, got {shapes}; expand them")
    if mask is not None and (mask.dtype != torch.bool or not mask.any(dim=-1).all()):
        raise ValueError("expected a boolean mask (True = may attend) that leaves each query a key")
    return _OnlineSoftmax.apply(query, key, value, mask, block)


class _OnlineSoftmax(torch.autograd.Function):
    """Forward keeps the result and, for each query, the log of its sum of exponentials; backward needs no
    more."""

    @staticmethod
    def forward(ctx, query, key, value, mask, block):
        heard = query.new_zeros(*query.shape[:-1], value.size(-1))  # Σ of weight · value so far, (b, h, q, e)
        total = query.new_zeros(*query.shape[:-1], 1)  # Σ of weights so far, (b, h, q, 1)
        top = torch.full_like(total, -torch.inf)  # the largest score so far
        for start in range(0, key.size(-2), block):
            k, v = key[..., start : start + block, :], value[..., start : start + block, :]
            scores = _scores(query, k, mask, start)  # (b, h, q, block)
            new_top = torch.maximum(top, scores.amax(dim=-1, keepdim=True))
            safe_top = new_top.clamp(min=torch.finfo(query.dtype).min)  # no key heard yet: not −∞ − −∞
            weights = (scores - safe_top).exp_()
            rescale = (top - safe_top).exp_()  # what was added up so far was relative to the old maximum
            heard = heard * rescale + weights @ v
            total = total * rescale + weights.sum(dim=-1, keepdim=True)
            top = new_top
        heard = heard / total
        ctx.save_for_backward(query, key, value, mask, heard, top + total.log())
        ctx.block = block
        return heard

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        query, key, value, mask, heard, log_total = ctx.saved_tensors
        scale = 1 / math.sqrt(query.size(-1))
        mean = (upstream * heard).sum(dim=-1, keepdim=True)  # Σ_k weight · its gradient, (b, h, q, 1)
        query_grad, key_grad, value_grad = (torch.zeros_like(x) for x in (query, key, value))
        for start in range(0, key.size(-2), ctx.block):
            here = slice(start, start + ctx.block)
            k, v = key[..., here, :], value[..., here, :]
            weights = (_scores(query, k, mask, start) - log_total).exp_()  # (b, h, q, block)
            value_grad[..., here, :] = weights.transpose(-2, -1) @ upstream
            scores_grad = weights * (upstream @ v.transpose(-2, -1) - mean) * scale
            query_grad += scores_grad @ k
            key_grad[..., here, :] = scores_grad.transpose(-2, -1) @ query
        return query_grad, key_grad, value_grad, None, None


def _scores(query: Tensor, key: Tensor, mask: Tensor | None, start: int) -> Tensor:
    """Return the scaled dot products with a block of keys that begins at ``start``, −∞ where hidden."""
    scores = (query / math.sqrt(query.size(-1))) @ key.transpose(-2, -1)
    if mask is None:
        return scores
    if mask.size(-1) > 1:  # a last axis of 1 means: the same for every key
        mask = mask[..., start : start + key.size(-2)]
    return scores.masked_fill_(~mask, -torch.inf)
