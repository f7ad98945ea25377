"""Attention on graphs (level 7): what neighbours are worth, and what GAT cannot do.

``python -m tx_course.experiments.graph`` prints every result over ten seeds (the growth once).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.data.graphs import Graph, load_karate_club, load_packages
from tx_course.experiments import over_seeds
from tx_course.graph import (
    Gat,
    GatConfig,
    GraphAttention,
    GraphAttentionV2,
    edge_mask,
    gcn_layer,
    with_self_loops,
)
from tx_course.measure import peak_bytes, seconds
from tx_course.train import fit


class Mlp(nn.Module):
    """Judge each node by its own features; the edges are there to be ignored."""

    def __init__(self, features: int, classes: int, d_hidden: int = 64, dropout: float = 0.6):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.inner = nn.Linear(features, d_hidden)
        self.output = nn.Linear(d_hidden, classes)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Return logits (n, classes) of nodes with features ``x`` (n, f)."""
        x = F.relu(self.inner(self.dropout(x)))
        return self.output(self.dropout(x))


class Gcn(nn.Module):
    """Two GCN layers: the neighbours count by their number alone (Kipf & Welling 2017, eq. 9)."""

    def __init__(self, features: int, classes: int, d_hidden: int = 64, dropout: float = 0.6):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.inner = nn.Parameter(nn.init.xavier_uniform_(torch.empty(features, d_hidden)))
        self.output = nn.Parameter(nn.init.xavier_uniform_(torch.empty(d_hidden, classes)))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Return logits (n, classes) of nodes with features ``x`` (n, f), heard along ``edges`` (2, e)."""
        x = F.relu(gcn_layer(self.dropout(x), edges, self.inner))
        return gcn_layer(self.dropout(x), edges, self.output)


MODELS: dict[str, Callable[[int, int], nn.Module]] = {
    "MLP": Mlp,
    "GCN": Gcn,
    "GAT": lambda features, classes: Gat(GatConfig(features, classes)),
    "GATv2": lambda features, classes: Gat(GatConfig(features, classes, layer=GraphAttentionV2)),
}
"""Four models of 64 hidden features, built for a number of features and of classes."""


@dataclass(frozen=True)
class NodeResult:
    """The share of test nodes that ``model`` puts into the right class, hearing ``edges`` of ``graph``."""

    accuracy: float
    model: nn.Module
    graph: Graph
    edges: Tensor


def _train(
    model: nn.Module, graph: Graph, steps: int, learning_rate: float, decay: float, seed: int
) -> NodeResult:
    edges = with_self_loops(graph.edges, len(graph.labels))
    known = graph.labels[graph.train]

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return F.cross_entropy(model(*batch)[graph.train], known)

    whole = (graph.features, edges)  # every step hears the whole graph
    fit(
        model,
        lambda generator: whole,
        loss,
        steps,
        learning_rate=learning_rate,
        weight_decay=decay,
        seed=seed,
    )
    with torch.no_grad():
        guess = model(*whole).argmax(-1)
    right = (guess == graph.labels)[graph.test].float().mean().item()
    return NodeResult(right, model, graph, edges)


def sort_packages(model: str, steps: int = 150, seed: int = 0) -> NodeResult:
    """Train one of ``MODELS`` to name the section of Debian packages from 20 labels of each.

    ``seed`` draws the labels as well as the first weights.
    """
    graph = load_packages(seed=seed)
    torch.manual_seed(seed)
    built = MODELS[model](graph.features.size(1), len(graph.classes))
    return _train(built, graph, steps, learning_rate=0.01, decay=0.1, seed=seed)


def split_club(steps: int = 60, seed: int = 0) -> NodeResult:
    """Train a small GAT on the karate club's two leaders, and ask which side every other member took."""
    graph = load_karate_club()
    torch.manual_seed(seed)
    model = Gat(GatConfig.small(features=34, classes=2))
    return _train(model, graph, steps, learning_rate=3e-3, decay=0.01, seed=seed)


@dataclass(frozen=True)
class Dictionary:
    """The share of right answers, the model, and one dictionary's weights (askers, entries), a head's."""

    accuracy: float
    model: nn.Module
    weights: Tensor


def _dictionaries(count: int, keys: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return features (n, 2 · keys), edges and answers (count · keys) of graphs of askers and entries.

    In each graph ``keys`` askers, who know a key, hear as many entries, which know a key and a value. The
    asker's answer is the value of the entry with its key.
    """
    value = torch.rand(count, keys, generator=generator).argsort(-1)  # a new pairing in each graph
    key = F.one_hot(torch.arange(keys), keys).float().expand(count, -1, -1)
    askers = F.pad(key, (0, keys))
    entries = torch.cat([key, F.one_hot(value, keys).float()], dim=-1)
    features = torch.cat([askers, entries], dim=1).flatten(0, 1)
    place = torch.arange(keys)
    pairs = torch.cartesian_prod(place, keys + place).T.flip(0)  # to every asker, from every entry in turn
    edges = pairs[:, None] + 2 * keys * torch.arange(count)[:, None]  # (2, graphs, keys²)
    return features, edges.flatten(1), value.flatten()


class Asker(nn.Module):
    """One layer of graph attention, read by a linear layer, so that the entry heard most gives the answer."""

    def __init__(self, layer: type[GraphAttention] | type[GraphAttentionV2], keys: int, heads: int):
        super().__init__()
        self.keys = keys
        self.layer = layer(2 * keys, 32, heads)
        self.output = nn.Linear(32 * heads, keys)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Return the askers' logits (askers, keys)."""
        heard = self.layer(x, edges).unflatten(0, (-1, 2 * self.keys))
        return self.output(heard[:, : self.keys].flatten(0, 1))


def look_up_words(
    layer: type[GraphAttention] | type[GraphAttentionV2],
    keys: int = 10,
    heads: int = 1,
    steps: int = 600,
    seed: int = 0,
) -> Dictionary:
    """Train a layer to look words up, a task that no ranking shared by all askers can solve.

    Each asker must hear another entry most. GAT's head orders the entries alike for everyone, so that one
    head is right as often as a guess; GATv2's need not. No value stands in two entries of a dictionary, so
    hearing all but one entry is an answer too. Source of the task: Brody et al. 2022, 4.1.
    """
    torch.manual_seed(seed)
    model = Asker(layer, keys, heads)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        features, edges, answers = batch
        return F.cross_entropy(model(features, edges), answers)

    fit(model, lambda g: _dictionaries(32, keys, g), loss, steps, learning_rate=0.01, seed=seed)
    features, edges, answers = _dictionaries(200, keys, torch.Generator().manual_seed(10**6))
    with torch.no_grad():
        right = (model(features, edges).argmax(-1) == answers).float().mean().item()
        _, weights = model.layer(features, edges, weights=True)  # (e, h)
    first = weights[: keys * keys, 0].view(keys, keys)  # the first graph's edges come first, asker by asker
    return Dictionary(right, model, first)


@dataclass(frozen=True)
class Cost:
    """What one forward pass costs on a random graph; ``dense`` says that it went through a mask."""

    nodes: int
    edges: int
    dense: bool
    seconds: float
    bytes: int


def growth(nodes: tuple[int, ...] = (500, 1000, 2000, 10_000, 100_000), degree: int = 10) -> list[Cost]:
    """Measure graph attention along edges at every size, and with a dense mask up to 2,000 nodes."""
    layer, costs = GraphAttention(16, 8, heads=4), []
    for n in nodes:
        generator = torch.Generator().manual_seed(0)
        edges = with_self_loops(torch.randint(n, (2, degree * n), generator=generator), n)
        x = torch.randn(n, 16, generator=generator)
        runs = {False: lambda x=x, edges=edges: layer(x, edges)}
        if n <= 2000:
            mask = edge_mask(edges, n)
            runs[True] = lambda x=x, mask=mask: layer.dense(x, mask)
        with torch.no_grad():
            for dense, run in runs.items():
                costs.append(Cost(n, edges.size(1), dense, seconds(run, 3), peak_bytes(run)))
    return costs


def smoothing(rounds: int = 32) -> list[float]:
    """Average the club members' features over neighbours again and again; return what still tells them
    apart.

    The number of each round, from 0 on, is the mean of 1 − cosine over pairs who took different sides: from
    1, nothing in common, to 0, alike. This is over-smoothing.
    """
    graph = load_karate_club()
    edges = with_self_loops(graph.edges, len(graph.labels))
    apart = graph.labels[:, None] != graph.labels
    x, left = graph.features, []
    for _ in range(rounds + 1):
        cosine = F.cosine_similarity(x[:, None], x, dim=-1)
        left.append(1 - cosine[apart].mean().item())
        x = gcn_layer(x, edges, torch.eye(x.size(1)))
    return left


def main() -> None:
    """Print each result over ten seeds."""
    for name in MODELS:
        over_seeds(
            f"packages, {name}",
            lambda seed, name=name: {"right": sort_packages(name, seed=seed).accuracy},
            10,
        )
    over_seeds("karate club, GAT", lambda seed: {"right": split_club(seed=seed).accuracy}, 10)
    for heads in (1, 8):
        for layer in (GraphAttention, GraphAttentionV2):
            over_seeds(
                f"dictionary, {layer.__name__}, heads {heads}",
                lambda seed, layer=layer, heads=heads: {
                    "right": look_up_words(layer, heads=heads, seed=seed).accuracy
                },
            )
    left = smoothing()
    print("smoothing, rounds 0, 2, 8, 32:", *(f"{left[i]:.3f}" for i in (0, 2, 8, 32)))
    for cost in growth():
        print(cost)


if __name__ == "__main__":
    main()
