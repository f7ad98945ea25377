"""Attention on graphs (level 7): the neighbourhood comes from the data.

Axes: n nodes, e edges, h heads, q nodes that ask, k nodes that are heard, f features of a node, d features
per head. ``edges`` is (2, e): row 0 the source, who is heard (the key); row 1 the target, who asks (the
query). A dense mask is (q, k), True where q may hear k. Nobody hears itself unless an edge says so:
``with_self_loops`` adds those edges.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.attention import attend


def with_self_loops(edges: Tensor, nodes: int) -> Tensor:
    """Let each of ``nodes`` hear itself, once: (2, e) gives (2, e + n) if ``edges`` had no loops.

    >>> with_self_loops(torch.tensor([[0, 1], [1, 1]]), nodes=2).tolist()
    [[0, 0, 1], [1, 0, 1]]
    """
    loops = torch.arange(nodes, device=edges.device).expand(2, nodes)
    return torch.cat([edges[:, edges[0] != edges[1]], loops], dim=1)


def edge_mask(edges: Tensor, nodes: int) -> Tensor:
    """Write an edge list as a dense mask (q, k): row q is True at the nodes that q hears.

    A mask cannot say that an edge is there twice; along ``edges`` such a neighbour is heard twice.

    >>> edge_mask(torch.tensor([[0, 1], [1, 1]]), nodes=2).int().tolist()
    [[0, 0], [1, 1]]
    """
    mask = torch.zeros(nodes, nodes, dtype=torch.bool, device=edges.device)
    source, target = edges
    mask[target, source] = True
    return mask


def segment_sum(x: Tensor, segment: Tensor, count: int) -> Tensor:
    """Add up the rows of ``x`` (e, …) that have the same ``segment`` (e): (count, …). An empty one gives 0.

    >>> segment_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 0]), count=3).tolist()
    [5.0, 0.0, 2.0]
    """
    rest = x.shape[1:]
    rows = x.reshape(len(x), math.prod(rest))  # PyTorch adds up rows of numbers faster than rows of matrices
    return rows.new_zeros(count, rows.size(1)).index_add(0, segment, rows).view(count, *rest)


def _take(x: Tensor, row: Tensor) -> Tensor:
    """Return rows of ``x`` (n, …), taken while they are flat, because the gradient is a ``segment_sum``."""
    return x.flatten(1).index_select(0, row).view(len(row), *x.shape[1:])


def _exponentials(scores: Tensor, segment: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return each row's exp(score − the largest of its segment), (e, h), and their sums, (count, h).

    A segment that has rows sums to at least 1, its largest row's exp(0). An empty one is given 1 too, so that
    nothing divided by it is still nothing.
    """
    with torch.no_grad():  # subtracting the largest changes no weight, so it needs no gradient
        largest = scores.new_full((count, scores.size(1)), -torch.inf)
        largest.scatter_reduce_(0, segment[:, None].expand_as(scores), scores, "amax")
    exponentials = (scores - largest.index_select(0, segment)).exp()
    return exponentials, segment_sum(exponentials, segment, count).clamp(min=1)


def segment_softmax(scores: Tensor, segment: Tensor, count: int) -> Tensor:
    """Turn ``scores`` (e, h), in nats, into weights (e, h) that sum to 1 over the rows of each segment.

    ``segment`` (e) says which of ``count`` segments a row belongs to; for attention it is the edge's target.

    >>> scores = torch.zeros(3, 1)
    >>> segment_softmax(scores, torch.tensor([0, 0, 2]), count=3).flatten().tolist()
    [0.5, 0.5, 1.0]
    """
    exponentials, total = _exponentials(scores, segment, count)
    return exponentials / total.index_select(0, segment)


class _GraphHeads(nn.Module):
    """What both kinds of graph attention share: who is averaged, and how the heads are put together."""

    def __init__(self, d_in: int, d_out: int, heads: int, concat: bool):
        super().__init__()
        self.heads = heads
        self.concat = concat
        self.bias = nn.Parameter(torch.zeros(heads * d_out if concat else d_out))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (n, h, …) of the nodes' features ``x`` (n, f)."""
        raise NotImplementedError

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        """Return each pair's score in nats, (…, h): ``query`` and ``key`` (…, h, …) broadcast."""
        raise NotImplementedError

    def forward(self, x: Tensor, edges: Tensor, weights: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return what each node hears along ``edges`` (2, e), from features ``x`` (n, f).

        The result is (n, h · d), or (n, d) when the heads are averaged; a node with no edge in hears nothing,
        and gets the bias. With ``weights=True`` it is a pair whose second part is each edge's weight (e, h).
        Time and memory grow with e, not with n².
        """
        source, target = edges
        query, key, value = self.project(x)
        scores = self.score(_take(query, target), _take(key, source))  # (e, h)
        exponentials, total = _exponentials(scores, target, len(x))
        # The division by C comes after the sum: n numbers to divide instead of e.
        messages = _take(value, source) * exponentials[..., None]  # (e, h, d)
        y = self._merge(segment_sum(messages, target, len(x)) / total[..., None])
        return (y, exponentials / total.index_select(0, target)) if weights else y

    def dense(self, x: Tensor, mask: Tensor, weights: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return the numbers of ``forward`` from a mask (q, k), at the price of all n² pairs.

        With ``weights=True`` the second part is (h, q, k). This is ``attend`` with another score: on the
        complete graph it is a Transformer's self-attention. Raises ValueError if ``mask`` leaves a node
        nobody to hear.
        """

        def score(query: Tensor, key: Tensor) -> Tensor:
            pairs = self.score(query.transpose(0, 1)[:, None], key.transpose(0, 1))  # (q, k, h)
            return pairs.permute(2, 0, 1)

        query, key, value = (t.transpose(0, 1) for t in self.project(x))  # (h, n, …)
        y, w = attend(query, key, value, mask, score, weights=True)
        y = self._merge(y.transpose(0, 1))
        return (y, w) if weights else y

    def _merge(self, y: Tensor) -> Tensor:
        return (y.flatten(1) if self.concat else y.mean(1)) + self.bias


class GraphAttention(_GraphHeads):
    """GAT's layer: score LeakyReLU(aᵀ [W x_i ‖ W x_j]), softmax over the neighbours j, average of W x_j.

    ``d_out`` is the size of a head. The heads are concatenated (inner layers) or, with ``concat=False``,
    averaged (last layer); the activation after the layer is the caller's. a splits into a half for the one
    who asks and a half for the one who is heard, so each node is scored twice and no pair is ever glued. But
    then all nodes rank their neighbours alike (``GraphAttentionV2``).
    Source: Veličković et al. 2018, eq. 1 to 6.

    >>> edges = with_self_loops(torch.tensor([[0, 1], [1, 2]]), nodes=3)
    >>> layer = GraphAttention(d_in=4, d_out=5, heads=2)
    >>> layer(torch.zeros(3, 4), edges).shape
    torch.Size([3, 10])
    """

    def __init__(self, d_in: int, d_out: int, heads: int = 1, concat: bool = True, slope: float = 0.2):
        super().__init__(d_in, d_out, heads, concat)
        self.slope = slope
        self.linear = nn.Linear(d_in, heads * d_out, bias=False)
        self.query_score = nn.Parameter(torch.empty(heads, d_out))
        self.key_score = nn.Parameter(torch.empty(heads, d_out))
        for weight in (self.linear.weight, self.query_score, self.key_score):
            nn.init.xavier_uniform_(weight)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each node's part of a score, asking and being heard, (n, h, 1), and its values (n, h, d)."""
        value = self.linear(x).unflatten(-1, (self.heads, -1))  # (n, h, d)
        query = (value * self.query_score).sum(-1, keepdim=True)
        key = (value * self.key_score).sum(-1, keepdim=True)
        return query, key, value

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        """Return LeakyReLU of the sum of both parts."""
        return F.leaky_relu(query + key, self.slope).squeeze(-1)


class GraphAttentionV2(_GraphHeads):
    """GATv2's layer: score aᵀ LeakyReLU(W_q x_i + W_k x_j), so that each node may prefer another neighbour.

    a comes after the LeakyReLU, as in the additive score of level 2. Before it, as in GAT, the order of a
    node's neighbours depends on the neighbours alone. The values are the keys, W_k x_j. Arguments as in
    ``GraphAttention``; a score costs d_out times more.
    Source: Brody et al. 2022, eq. 7.

    >>> edges = with_self_loops(torch.tensor([[0, 1], [1, 2]]), nodes=3)
    >>> GraphAttentionV2(d_in=4, d_out=5, heads=2, concat=False)(torch.zeros(3, 4), edges).shape
    torch.Size([3, 5])
    """

    def __init__(self, d_in: int, d_out: int, heads: int = 1, concat: bool = True, slope: float = 0.2):
        super().__init__(d_in, d_out, heads, concat)
        self.slope = slope
        self.query = nn.Linear(d_in, heads * d_out)
        self.key = nn.Linear(d_in, heads * d_out)
        self.readout = nn.Parameter(torch.empty(heads, d_out))
        for weight in (self.query.weight, self.key.weight, self.readout):
            nn.init.xavier_uniform_(weight)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries and keys (n, h, d); the keys are also the values."""
        query = self.query(x).unflatten(-1, (self.heads, -1))
        key = self.key(x).unflatten(-1, (self.heads, -1))
        return query, key, key

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        """Return what a reads from LeakyReLU of the sum."""
        return (F.leaky_relu(query + key, self.slope) * self.readout).sum(-1)


def gcn_layer(x: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
    """Average the neighbours with weights that the graph alone decides: Σ_j W x_j / √(deg_i · deg_j).

    ``x`` (n, f), ``edges`` (2, e) with self-loops, ``weight`` (f, d) give (n, d). deg counts the edges that
    come in. It is this level's baseline: its weights look at no features. Source: Kipf & Welling 2017, eq. 2.

    >>> edges = with_self_loops(torch.tensor([[0, 1], [1, 0]]), nodes=2)
    >>> gcn_layer(torch.tensor([[1.0], [3.0]]), edges, torch.eye(1)).round(decimals=6).tolist()
    [[2.0], [2.0]]
    """
    source, target = edges
    degree = segment_sum(torch.ones_like(target, dtype=x.dtype), target, len(x))
    share = degree.rsqrt().masked_fill(degree == 0, 0.0)  # 1 / √0: it hears nobody and nobody hears it
    weights = share.index_select(0, source) * share.index_select(0, target)  # (e)
    messages = (x @ weight).index_select(0, source) * weights[:, None]
    return segment_sum(messages, target, len(x))


@dataclass(frozen=True)
class GatConfig:
    """Sizes of a GAT for nodes of ``classes`` kinds: the paper's for Cora, unless said otherwise.

    ``d_hidden`` is the size of a head, ``layer`` is ``GraphAttention`` or ``GraphAttentionV2``, and
    ``dropout`` (a probability) applies to each layer's input. Source: Veličković et al. 2018, 3.3.

    >>> GatConfig(features=1433, classes=7).heads
    8
    """

    features: int
    classes: int
    d_hidden: int = 8
    heads: int = 8
    layers: int = 2
    dropout: float = 0.6
    layer: type[GraphAttention] | type[GraphAttentionV2] = GraphAttention

    @classmethod
    def small(cls, features: int, classes: int) -> "GatConfig":
        """Return a size for graphs of a few dozen nodes, such as the karate club."""
        return cls(features, classes, d_hidden=4, heads=4, dropout=0.0)


class Gat(nn.Module):
    """Layers of graph attention with ELU between them; the last averages its heads into logits.

    The paper also drops attention weights at random; this model drops features only.

    >>> model = Gat(GatConfig.small(features=5, classes=3))
    >>> model(torch.zeros(4, 5), with_self_loops(torch.tensor([[0], [1]]), nodes=4)).shape
    torch.Size([4, 3])
    """

    def __init__(self, config: GatConfig):
        super().__init__()
        self.config = config
        width = config.heads * config.d_hidden
        sizes = [config.features] + [width] * (config.layers - 1)
        inner = (config.layer(size, config.d_hidden, config.heads) for size in sizes[:-1])
        self.layers = nn.ModuleList([*inner, config.layer(sizes[-1], config.classes, concat=False)])
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Return logits (n, classes) of nodes with features ``x`` (n, f), heard along ``edges`` (2, e)."""
        for layer in self.layers[:-1]:
            x = F.elu(layer(self.dropout(x), edges))
        return self.layers[-1](self.dropout(x), edges)
