"""Training a Transformer and letting it speak (level 3): the loss, the warm-up, greedy and beam search.

Axes: b batch, s source positions, t target positions, n beams, v vocabulary. Decoding works with any model
that has ``encode(source)`` and ``decode(target, memory, memory_mask)``, as ``Transformer`` has; call
``model.eval()`` first.
"""

import torch
from torch import Tensor, nn

from tx_course.multi_head import padding_mask


def label_smoothing(logits: Tensor, target: Tensor, smoothing: float = 0.1, pad: int = 0) -> Tensor:
    """Return the mean cross-entropy (nats) of ``logits`` (…, v) with softened ``target`` (…).

    The target distribution gives ε / v to every token and the remaining 1 − ε to the right one. Positions
    whose target is ``pad`` do not count. Source: Szegedy et al. 2016; ε = 0.1 in Vaswani et al. 2017, 5.4.
    Raises ValueError if every target is padding, where the mean would be 0/0.

    >>> round(label_smoothing(torch.zeros(1, 4), torch.tensor([2])).item(), 4)  # log 4, whatever ε
    1.3863
    """
    real = target != pad
    if not real.any():
        raise ValueError(f"expected at least one target that is not padding ({pad}), got only padding")
    log_probability = logits[real].log_softmax(dim=-1)  # (real tokens, v)
    right = log_probability.gather(-1, target[real][:, None])
    return -((1 - smoothing) * right.mean() + smoothing * log_probability.mean())


def warmup_schedule(step: int, d_model: int = 512, warmup: int = 4000) -> float:
    """Return the learning rate at ``step`` (from 1): it rises for ``warmup`` steps, then falls as 1/√step.

    Source: Vaswani et al. 2017, eq. 3. Raises ValueError if ``step`` is below 1.

    >>> round(warmup_schedule(4000), 6)
    0.000699
    """
    if step < 1:
        raise ValueError(f"steps count from 1, got {step}")
    return d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)


def _next_log_probability(
    model: nn.Module, target: Tensor, memory: Tensor, memory_mask: Tensor, pad: int
) -> Tensor:
    """Return the log-probability (b, v) of each token after ``target`` (b, t); padding is never said."""
    logits = model.decode(target, memory, memory_mask)[:, -1].clone()
    logits[:, pad] = -torch.inf
    return logits.log_softmax(dim=-1)


@torch.no_grad()
def greedy_decode(
    model: nn.Module, source: Tensor, start: int, end: int, max_length: int, pad: int = 0
) -> Tensor:
    """Say the likeliest next token again and again, until every sentence has said ``end``.

    ``source`` (b, s) gives (b, t), t ≤ ``max_length`` tokens: without ``start``, with ``end``, and ``pad``
    after it.

    >>> from tx_course.transformer import Transformer, TransformerConfig
    >>> model = Transformer(TransformerConfig.small(10, 10)).eval()
    >>> greedy_decode(model, torch.tensor([[3, 4]]), start=1, end=2, max_length=5).size(0)
    1
    """
    memory, memory_mask = model.encode(source), padding_mask(source, pad)
    target = source.new_full((source.size(0), 1), start)
    ended = torch.zeros_like(target[:, 0], dtype=torch.bool)
    while not ended.all() and target.size(1) <= max_length:
        token = _next_log_probability(model, target, memory, memory_mask, pad).argmax(dim=-1)
        target = torch.cat([target, token.masked_fill(ended, pad)[:, None]], dim=1)
        ended |= token == end
    return target[:, 1:]


@torch.no_grad()
def beam_search(
    model: nn.Module,
    source: Tensor,
    start: int,
    end: int,
    max_length: int,
    beams: int = 4,
    penalty: float = 0.6,
    pad: int = 0,
) -> tuple[Tensor, Tensor]:
    """Keep the ``beams`` best beginnings of each sentence, and return the best whole one with its score.

    ``source`` (b, s) gives tokens (b, t) as ``greedy_decode`` and scores (b): log-probability (nats) divided
    by ((5 + length) / 6) ** ``penalty``, so that long sentences are not punished for having more factors. A
    sentence that has ended stays among the beams and is compared with those still growing; one cut off at
    ``max_length`` counts as it is. One beam is greedy decoding. Source: Wu et al. 2016, eq. 14.

    >>> from tx_course.transformer import Transformer, TransformerConfig
    >>> model = Transformer(TransformerConfig.small(10, 10)).eval()
    >>> tokens, scores = beam_search(model, torch.tensor([[3, 4]]), start=1, end=2, max_length=5)
    >>> tokens.size(0), scores.shape
    (1, torch.Size([1]))
    """
    memory = model.encode(source).repeat_interleave(beams, dim=0)
    memory_mask = padding_mask(source, pad).repeat_interleave(beams, dim=0)
    target = source.new_full((source.size(0) * beams, 1), start)  # (b · n, t)
    total = memory.new_full((source.size(0), beams), -torch.inf)
    total[:, 0] = 0  # all beams begin alike, so only the first may grow
    length = torch.zeros_like(total)
    ended = torch.zeros_like(total, dtype=torch.bool)
    while not ended.all() and target.size(1) <= max_length:
        step = _next_log_probability(model, target, memory, memory_mask, pad).unflatten(0, total.shape)
        step[ended] = -torch.inf  # an ended sentence goes on in one way, with padding, for nothing
        step[..., pad] = step[..., pad].masked_fill(ended, 0)
        grown = length + ~ended
        score = (total[..., None] + step) / _length_penalty(grown, penalty)[..., None]  # (b, n, v)
        best = score.flatten(1).topk(beams).indices  # (b, n)
        parent, token = best // step.size(-1), best % step.size(-1)
        total = (total[..., None] + step).flatten(1).gather(1, best)
        length, ended = grown.gather(1, parent), ended.gather(1, parent) | (token == end)
        kept = target.unflatten(0, total.shape).take_along_dim(parent[..., None], dim=1)
        target = torch.cat([kept, token[..., None]], dim=-1).flatten(0, 1)
    score, winner = (total / _length_penalty(length, penalty)).max(dim=1)
    tokens = target.unflatten(0, total.shape).take_along_dim(winner[:, None, None], dim=1)[:, 0, 1:]
    return tokens, score


def _length_penalty(length: Tensor, penalty: float) -> Tensor:
    return ((5 + length) / 6) ** penalty
