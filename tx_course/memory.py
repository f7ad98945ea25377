"""Attention is a mechanism (level 1): a question reads a memory, once or in several hops.

Axes: b batch, n lines of the memory, w words of a line, q query positions, k key positions, d features, v
vocabulary. Masks are boolean, True meaning "may attend". Token ``pad`` fills up short lines, after the words.
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.attention import additive, attend, dot


class AdditiveAttention(nn.Module):
    """Attend by a small network that looks at query and key together, vᵀ tanh(W_q q + W_k k).

    ``query_size`` and ``key_size`` are the features of each; ``d_hidden`` is the width of the network.
    Source: Bahdanau et al. 2015, where the query is the decoder's state and the keys are the encoder's.

    >>> attention = AdditiveAttention(query_size=3, key_size=4, d_hidden=5)
    >>> attention(torch.zeros(2, 1, 3), torch.zeros(2, 7, 4)).shape
    torch.Size([2, 1, 4])
    """

    def __init__(self, query_size: int, key_size: int, d_hidden: int):
        super().__init__()
        self.query = nn.Linear(query_size, d_hidden, bias=False)
        self.key = nn.Linear(key_size, d_hidden, bias=False)
        self.readout = nn.Parameter(torch.randn(d_hidden) / math.sqrt(d_hidden))

    def forward(
        self, query: Tensor, key: Tensor, mask: Tensor | None = None, weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the average (b, q, d) of what each ``query`` (b, q, m) finds among the ``key`` (b, k, d).

        Keys are their own values. ``mask`` broadcasts to (b, q, k). With ``weights=True`` the result is a
        pair, whose second part is the weights (b, q, k).
        """
        score = partial(
            additive, query_weight=self.query.weight, key_weight=self.key.weight, readout=self.readout
        )
        return attend(query, key, key, mask, score, weights)


class AttentionPooling(nn.Module):
    """Turn any number of features into one by asking each the same learned question (Yang et al. 2016).

    What position i has to offer is tanh(W x_i + b), its weight the softmax of that times the question.

    >>> pool = AttentionPooling(d_model=4, d_hidden=8)
    >>> mask = torch.tensor([[True, True, False], [True, True, True]])
    >>> pool(torch.zeros(2, 3, 4), mask).shape
    torch.Size([2, 4])
    """

    def __init__(self, d_model: int, d_hidden: int):
        super().__init__()
        self.offer = nn.Linear(d_model, d_hidden)
        self.question = nn.Parameter(torch.randn(d_hidden) / math.sqrt(d_hidden))

    def forward(self, x: Tensor, mask: Tensor, weights: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return the average (b, d) of ``x`` (b, k, d) over the positions that ``mask`` (b, k) calls real.

        With ``weights=True`` the result is a pair, whose second part is the weights (b, k).
        """
        key = torch.tanh(self.offer(x))  # (b, k, hidden)
        pooled, weight = attend(self.question[None], key, x, mask[:, None], dot, weights=True)  # (b, 1, d)
        return (pooled[:, 0], weight[:, 0]) if weights else pooled[:, 0]


def position_encoding(tokens: Tensor, d_model: int, pad: int = 0) -> Tensor:
    """Weigh each word by its place, so that the sum over a line's words keeps their order.

    ``tokens`` (…, w) give float64 (…, w, d): feature k of d of word j of J weighs
    (1 − j/J) − (k/d)(1 − 2j/J), both counted from 1. Padding, which must come last, weighs 0 and does not
    count towards J. Source: Sukhbaatar et al. 2015, 4.1.

    >>> position_encoding(torch.tensor([7, 9, 0]), d_model=2).tolist()
    [[0.5, 0.5], [0.5, 1.0], [0.0, 0.0]]
    """
    real = (tokens != pad)[..., None]  # (…, w, 1)
    words = real.sum(dim=-2, keepdim=True).clamp(min=1)  # J; an empty line weighs 0 whatever it is divided by
    j = torch.arange(1, tokens.size(-1) + 1, device=tokens.device)[:, None] / words.double()  # (…, w, 1)
    k = torch.arange(1, d_model + 1, device=tokens.device).double() / d_model  # (d)
    return ((1 - j) - k * (1 - 2 * j)) * real


def encode_lines(tokens: Tensor, embedding: Tensor, pad: int = 0) -> Tensor:
    """Return one vector for each line: the sum of its words' embeddings, weighed by ``position_encoding``.

    ``tokens`` (…, w) and ``embedding`` (v, d) give (…, d). A line of padding gives zeros.

    >>> encode_lines(torch.tensor([[1, 2, 0]]), torch.tensor([[9.0], [4.0], [6.0]])).tolist()
    [[8.0]]
    """
    words = F.embedding(tokens, embedding)  # (…, w, d)
    return (words * position_encoding(tokens, embedding.size(1), pad).to(words)).sum(dim=-2)


@dataclass(frozen=True)
class MemoryNetworkConfig:
    """Sizes of a memory network: the paper's for its stories unless said (Sukhbaatar et al. 2015, 4.2).

    ``vocabulary`` counts tokens, ``lines`` is the longest memory, ``hops`` how often it is read.

    >>> MemoryNetworkConfig(vocabulary=20).hops
    3
    """

    vocabulary: int
    d_model: int = 20
    lines: int = 50
    hops: int = 3
    pad: int = 0

    @classmethod
    def small(cls, vocabulary: int, hops: int = 3) -> "MemoryNetworkConfig":
        """Return the course's size, for stories of at most 12 lines."""
        return cls(vocabulary, d_model=40, lines=12, hops=hops)


class MemoryNetwork(nn.Module):
    """Answer a question by reading a memory several times, each time with what the last reading found.

    With K hops there are K + 1 embeddings: hop i finds lines by embedding i and hears them by embedding
    i + 1 (adjacent weight tying). The first embedding is also the question's, and the last also names the
    answer. Line i of the memory gets a learned vector that says "this was line i" (temporal encoding), so the
    order of the lines counts. Source: Sukhbaatar et al. 2015, 2.1, 2.2 and 4.1.

    >>> model = MemoryNetwork(MemoryNetworkConfig.small(vocabulary=20))
    >>> lines, question = torch.randint(1, 20, (2, 9, 5)), torch.randint(1, 20, (2, 4))
    >>> logits, weights = model(lines, question, weights=True)
    >>> logits.shape, weights.shape
    (torch.Size([2, 20]), torch.Size([2, 3, 9]))
    """

    def __init__(self, config: MemoryNetworkConfig):
        super().__init__()
        self.config = config
        sizes = (config.hops + 1, config.vocabulary, config.d_model)
        self.embeddings = nn.Parameter(torch.randn(sizes) * 0.1)
        self.temporal = nn.Parameter(torch.randn(config.hops + 1, config.lines, config.d_model) * 0.1)

    def forward(
        self, lines: Tensor, question: Tensor, linear: bool = False, weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (b, v) of the one-word answer to ``question`` (b, w), given ``lines`` (b, n, w).

        A line of padding is never read. ``linear=True`` leaves out the softmax over the memory, as training
        does at first (the "linear start"). With ``weights=True`` the result is a pair, whose second part
        holds the weights of every hop (b, hops, n).
        Raises ValueError if there are more lines than the model has places for.
        """
        if lines.size(1) > self.config.lines:
            raise ValueError(f"expected at most {self.config.lines} lines, got {lines.size(1)}")
        mask = (lines != self.config.pad).any(dim=-1)[:, None]  # (b, 1, n)
        memory = [
            encode_lines(lines, embedding, self.config.pad) + when[: lines.size(1)]  # (b, n, d)
            for embedding, when in zip(self.embeddings, self.temporal, strict=True)
        ]
        state = encode_lines(question[:, None], self.embeddings[0], self.config.pad)  # (b, 1, d)
        read, looked = _read_linearly if linear else _read, []
        for key, value in pairwise(memory):
            found, weight = read(state, key, value, mask)
            state = state + found
            looked.append(weight)
        logits = F.linear(state, self.embeddings[-1])[:, 0]  # (b, v)
        return (logits, torch.cat(looked, dim=1)) if weights else logits


_read = partial(attend, score=dot, weights=True)
"""One hop: the state (b, 1, d) finds lines by their keys (b, n, d) and hears their values (b, n, d)."""


def _read_linearly(state: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """One hop without the softmax: the scores themselves weigh the values."""
    weight = dot(state, key).masked_fill(~mask, 0)  # (b, 1, n)
    return weight @ value, weight
