"""Two real graphs: the packages of Debian that need one another, and Zachary's karate club.

Axes: n nodes, f features, e edges.
"""

from dataclasses import dataclass
from importlib.resources import files

import networkx
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Graph:
    """A graph whose nodes have features, and a class to be guessed.

    ``features`` (n, f) float32; ``edges`` (2, e) int64, from row 0 (who is heard) to row 1 (who hears), every
    neighbourhood once in each direction, sorted, no self-loops; ``labels`` (n) int64 into ``classes``;
    ``train``, ``validation`` and ``test`` (n) boolean, no node in two of them; ``names`` of the nodes.
    """

    features: Tensor
    edges: Tensor
    labels: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]


def both_ways(pairs: Tensor) -> Tensor:
    """Return each of the ``pairs`` (2, p) in both directions, sorted: edges (2, 2p).

    >>> both_ways(torch.tensor([[0, 1], [2, 2]])).tolist()
    [[0, 1, 2, 2], [2, 2, 0, 1]]
    """
    edges = torch.cat([pairs, pairs.flip(0)], dim=1)
    return edges[:, (edges[0] * (edges.max() + 1) + edges[1]).argsort()]


def _choose(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return a mask of ``count`` of the nodes that the mask ``candidates`` allows, drawn at random."""
    nodes = candidates.nonzero().squeeze(1)
    chosen = nodes[torch.randperm(len(nodes), generator=generator)[:count]]
    return torch.zeros_like(candidates).index_fill(0, chosen, True)


def load_packages(seed: int = 0, labels_per_class: int = 20, validation: int = 500) -> Graph:
    """Return the packages of eight sections of Debian 12, linked where one depends on, recommends or suggests
    the other.

    Features say which of the commoner words stand in the package's one-line description (0 or 1); the class
    is the section. ``seed`` draws ``labels_per_class`` training nodes of each class, and ``validation``
    others; the rest are the test nodes.

    >>> graph = load_packages()
    >>> graph.features.shape, graph.edges.shape, graph.classes[:3]
    (torch.Size([3873, 528]), torch.Size([2, 10170]), ('games', 'graphics', 'mail'))
    """
    with (files(__package__) / "packages.npz").open("rb") as file, np.load(file) as stored:
        names, words, classes = (tuple(str(stored[k]).split("\n")) for k in ("names", "words", "sections"))
        pairs, has_word = (torch.from_numpy(stored[k].astype(np.int64)) for k in ("pairs", "has_word"))
        labels = torch.from_numpy(stored["labels"]).long()
    features = torch.zeros(len(names), len(words))
    features[has_word[0], has_word[1]] = 1
    generator = torch.Generator().manual_seed(seed)
    each = [_choose(labels == c, labels_per_class, generator) for c in range(len(classes))]
    train = torch.stack(each).any(dim=0)
    held_back = _choose(~train, validation, generator)
    test = ~train & ~held_back
    return Graph(features, both_ways(pairs), labels, train, held_back, test, names, classes)


def load_karate_club() -> Graph:
    """Return the 34 members of a karate club and their friendships; the class is the side each took when it
    split.

    A member's only feature is who it is (one-hot). The two leaders are the training nodes, everyone else is
    tested. Source: Zachary 1977, as it comes with networkx.

    >>> graph = load_karate_club()
    >>> [graph.names[i] for i in graph.train.nonzero()], graph.edges.size(1)
    (['0', '33'], 156)
    """
    club = networkx.karate_club_graph()
    classes = ("Mr. Hi", "Officer")
    labels = torch.tensor([classes.index(club.nodes[node]["club"]) for node in club])
    train = torch.zeros(len(club), dtype=torch.bool)
    train[[0, 33]] = True
    return Graph(
        features=torch.eye(len(club)),
        edges=both_ways(torch.tensor(list(club.edges)).T),
        labels=labels,
        train=train,
        validation=torch.zeros_like(train),
        test=~train,
        names=tuple(map(str, club)),
        classes=classes,
    )
