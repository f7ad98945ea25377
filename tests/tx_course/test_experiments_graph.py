"""The experiments of level 7: a dictionary that can be looked up, fair models, and what GAT cannot do."""

import itertools

import torch

from tx_course.experiments.graph import (
    MODELS,
    _dictionaries,
    growth,
    look_up_words,
    smoothing,
    sort_packages,
    split_club,
)
from tx_course.graph import GraphAttention, GraphAttentionV2


def test_an_asker_hears_every_entry_of_its_own_dictionary_and_the_answer_is_among_them():
    keys = 5
    features, edges, answers = _dictionaries(3, keys, torch.Generator().manual_seed(0))
    asked = 0
    for graph in range(3):
        for asker in range(keys):
            node = graph * 2 * keys + asker
            heard = edges[0, edges[1] == node]
            assert heard.tolist() == [graph * 2 * keys + keys + entry for entry in range(keys)]
            (same_key,) = [n for n in heard if torch.equal(features[n, :keys], features[node, :keys])]
            assert features[same_key, keys:].argmax() == answers[asked]
            assert not features[node, keys:].any()
            asked += 1


def test_gatv2_looks_words_up_and_one_head_of_gat_cannot():
    can, cannot = (look_up_words(layer, keys=5, steps=300) for layer in (GraphAttentionV2, GraphAttention))
    assert can.accuracy > 0.9 and cannot.accuracy < 0.4
    # Each asker singles out its own entry: it hears that one alone, or, as well, all but that one.
    assert torch.equal((can.weights - 1 / 5).abs().argmax(1), torch.arange(5))
    assert (cannot.weights.argsort(1) == cannot.weights.argsort(1)[0]).all()


def test_models_have_about_as_many_parameters():
    sizes = {name: sum(p.numel() for p in build(528, 8).parameters()) for name, build in MODELS.items()}
    # GATv2 has two projections where the others have one.
    assert sizes.pop("GATv2") < 2.1 * min(sizes.values())
    assert max(sizes.values()) < 1.02 * min(sizes.values())


def test_neighbours_help_to_sort_packages():
    alone, heard = (sort_packages(model, steps=25).accuracy for model in ("MLP", "GAT"))
    assert heard > alone + 0.1


def test_two_labels_split_the_club():
    assert split_club().accuracy > 0.8


def test_averaging_over_and_over_makes_everyone_alike():
    left = smoothing(16)
    assert left[0] == 1.0 and left[16] < 0.1
    assert all(later < sooner for sooner, later in itertools.pairwise(left))


def test_edge_lists_grow_with_edges_and_masks_with_pairs():
    small, small_dense, large, large_dense = growth((100, 400))
    assert large.bytes < 4.5 * small.bytes
    assert large_dense.bytes > 12 * small_dense.bytes
