"""Linear attention: change the score so that the order of the products may change (level 9).

Axes: b batch, h heads, n positions (of queries or keys), d features per head, e features of the values.

With f(q, k) = φ(q) · φ(k) the sum over keys of φ(q) · φ(k) v is φ(q) times a (d, e) matrix that no query
appears in. So all keys are summed up once, and n² becomes n. It is another score, hence another function:
softmax attention is not approximated, it is replaced (Katharopoulos et al. 2020).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64  # positions; long enough for fast products, short enough that chunk² is small


def positive_features(x: Tensor) -> Tensor:
    """Return φ(x) = elu(x) + 1, any shape: positive, so that weights are (Katharopoulos et al. 2020, eq. 7).

    >>> positive_features(torch.tensor([0.0, 2.0])).tolist()
    [1.0, 3.0]
    """
    return F.elu(x) + 1


def kernel_score(query: Tensor, key: Tensor) -> Tensor:
    """Return log φ(q) · φ(k), (b, h, q, k): the score with which ``attend`` gives linear attention's numbers.

    Softmax takes the exponential of a score, so the weight is φ(q) · φ(k) over its sum. This is the form with
    n² numbers, for checking and for looking at.

    >>> kernel_score(torch.zeros(1, 4), torch.zeros(2, 4)).exp().tolist()
    [[4.0, 4.0]]
    """
    return (positive_features(query) @ positive_features(key).transpose(-2, -1)).log()


def linear_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Average the values (b, h, q, e) with weights φ(q) · φ(k) in time and memory linear in the length.

    ``query`` (b, h, q, d), ``key`` (b, h, k, d), ``value`` (b, h, k, e). A boolean ``mask`` (b, h, k) or any
    shape that broadcasts to it says which keys may be heard, by all queries alike: a mask per pair would need
    the n² numbers again. Source: Katharopoulos et al. 2020, eq. 5.
    Raises ValueError if the mask is not boolean or hides every key.

    >>> linear_attention(torch.zeros(1, 4), torch.zeros(2, 4), torch.tensor([[1.0], [3.0]])).item()
    2.0
    """
    query, key = positive_features(query), positive_features(key)
    if mask is not None:
        if mask.dtype != torch.bool or not mask.any(dim=-1).all():
            raise ValueError("expected a boolean mask over keys, (b, h, k), that leaves each row a key")
        key = key * mask[..., None]
    total = query @ key.sum(dim=-2)[..., None]  # (b, h, q, 1), each query's sum of weights
    return query @ (key.transpose(-2, -1) @ value) / total


def causal_linear_attention(query: Tensor, key: Tensor, value: Tensor, chunk: int = CHUNK) -> Tensor:
    """Linear attention in which each position hears itself and the past, shapes as in ``linear_attention``.

    What was heard before a chunk of positions is carried along as one (d, e) matrix and one (d) vector, as in
    an RNN; within the chunk the small causal square is written out. Source: Katharopoulos et al. 2020, 3.3.
    Raises ValueError if queries and keys differ in number.

    >>> value = torch.tensor([[1.0], [3.0], [5.0]])
    >>> causal_linear_attention(torch.zeros(3, 4), torch.zeros(3, 4), value, chunk=2).tolist()
    [[1.0], [2.0], [3.0]]
    """
    if query.size(-2) != key.size(-2):
        raise ValueError(f"expected as many queries as keys, got {query.size(-2)} and {key.size(-2)}")
    query, key = positive_features(query), positive_features(key)
    value = torch.cat([value, torch.ones_like(value[..., :1])], dim=-1)  # the ones add up to the denominator
    past = torch.zeros_like(key[..., :1, :]).transpose(-2, -1) * value[..., :1, :]  # (b, h, d, e + 1)
    heard = []
    for q, k, v in zip(*(x.split(chunk, dim=-2) for x in (query, key, value)), strict=True):
        heard.append(q @ past + (q @ k.transpose(-2, -1)).tril() @ v)  # (b, h, chunk, e + 1)
        past = past + k.transpose(-2, -1) @ v
    heard = torch.cat(heard, dim=-2)
    return heard[..., :-1] / heard[..., -1:]
