"""Level 7: graph attention against torch_geometric, dense against edge list, on directed graphs.

A graph whose edges go both ways hides a transposed adjacency, so these go one way.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch_geometric.nn import GATConv, GATv2Conv, GCNConv
from torch_geometric.utils import softmax as pyg_softmax

from tx_course.attention import attend
from tx_course.graph import (
    Gat,
    GatConfig,
    GraphAttention,
    GraphAttentionV2,
    edge_mask,
    gcn_layer,
    segment_softmax,
    segment_sum,
    with_self_loops,
)
from tx_course.measure import peak_bytes

CLOSE = {"atol": 1e-12, "rtol": 1e-12}
NODES, F_IN, D, HEADS = 9, 5, 4, 3
LAYERS = {"GAT": GraphAttention, "GATv2": GraphAttentionV2}
every_layer = pytest.mark.parametrize("kind", LAYERS.values(), ids=LAYERS)
concat_and_mean = pytest.mark.parametrize("concat", [True, False], ids=["concat", "mean"])


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def one_way_graph(nodes=NODES, loops=True):
    """A random directed graph. Without loops, nodes 0 and 1 have no edge in, and 0 has none at all."""
    pair = torch.rand(nodes, nodes, generator=torch.Generator().manual_seed(1)) < 0.35
    pair &= ~pair.T  # one way only
    pair.fill_diagonal_(False)
    pair[:2] = pair[:, 0] = False  # rows ask
    target, source = pair.nonzero().T
    edges = torch.stack([source, target])
    return with_self_loops(edges, nodes) if loops else edges


def drawn(module):
    """The module in float64 with every parameter random, biases too."""
    module = module.double()
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=100 + seed))
    return module


def layer(kind, concat=True):
    return drawn(kind(F_IN, D, HEADS, concat))


def their_gat(ours, loops=False):
    heads, d = ours.query_score.shape
    d_in = ours.linear.in_features
    theirs = GATConv(d_in, d, heads, concat=ours.concat, add_self_loops=loops).double()
    pairs = [
        (theirs.lin.weight, ours.linear.weight),
        (theirs.att_src, ours.key_score[None]),  # their source is who is heard
        (theirs.att_dst, ours.query_score[None]),
        (theirs.bias, ours.bias),
    ]
    return theirs, pairs


def their_gatv2(ours, loops=False):
    heads, d = ours.readout.shape
    d_in = ours.query.in_features
    theirs = GATv2Conv(d_in, d, heads, concat=ours.concat, add_self_loops=loops).double()
    pairs = [
        (theirs.lin_l.weight, ours.key.weight),
        (theirs.lin_l.bias, ours.key.bias),
        (theirs.lin_r.weight, ours.query.weight),
        (theirs.lin_r.bias, ours.query.bias),
        (theirs.att, ours.readout[None]),
        (theirs.bias, ours.bias),
    ]
    return theirs, pairs


def oracle(ours, loops=False):
    """torch_geometric's layer with the weights of ours, and the pairs of parameters, theirs first."""
    theirs, pairs = (their_gat if isinstance(ours, GraphAttention) else their_gatv2)(ours, loops)
    with torch.no_grad():
        for parameter, weight in pairs:
            parameter.copy_(weight)
    return theirs, [parameter for parameter, _ in pairs]


def named(ours):
    if isinstance(ours, GraphAttention):
        return [ours.linear.weight, ours.key_score, ours.query_score, ours.bias]
    weights = [ours.key.weight, ours.key.bias, ours.query.weight, ours.query.bias]
    return [*weights, ours.readout, ours.bias]


@every_layer
@concat_and_mean
@pytest.mark.parametrize("loops", [True, False], ids=["self-loops", "isolated nodes"])
def test_layer_equals_torch_geometrics_in_values_weights_and_gradients(kind, concat, loops):
    ours, edges = layer(kind, concat), one_way_graph(loops=loops)
    theirs, their_parameters = oracle(ours)
    x, y = draw(NODES, F_IN).requires_grad_(), draw(NODES, F_IN).requires_grad_()
    result, weights = ours(x, edges, weights=True)
    expected, (_, their_weights) = theirs(y, edges, return_attention_weights=True)
    torch.testing.assert_close(result, expected, **CLOSE)
    torch.testing.assert_close(weights, their_weights, **CLOSE)
    torch.testing.assert_close(ours(x, edges), result, **CLOSE)
    upstream = draw(*result.shape, seed=2)
    gradients = torch.autograd.grad(result, [x, *named(ours)], upstream)
    expected_gradients = torch.autograd.grad(expected, [y, *their_parameters], upstream)
    for a, b in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(a, b.view_as(a), **CLOSE)


@every_layer
@concat_and_mean
def test_dense_mask_and_edge_list_give_the_same_numbers_and_gradients(kind, concat):
    module, edges = layer(kind, concat), one_way_graph()
    mask = edge_mask(edges, NODES)
    x = draw(NODES, F_IN).requires_grad_()
    sparse, along_edges = module(x, edges, weights=True)
    dense, weights = module.dense(x, mask, weights=True)
    torch.testing.assert_close(dense, sparse, **CLOSE)
    torch.testing.assert_close(module.dense(x, mask), dense, **CLOSE)
    torch.testing.assert_close(weights[:, edges[1], edges[0]].T, along_edges, **CLOSE)
    assert (weights[:, ~mask] == 0).all()
    upstream = draw(*dense.shape, seed=2)
    both = [torch.autograd.grad(y, [x, *module.parameters()], upstream) for y in (dense, sparse)]
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@every_layer
def test_self_loops_are_those_torch_geometric_adds_by_default(kind):
    ours = layer(kind)
    edges = torch.cat([one_way_graph(loops=False), torch.tensor([[4, 5], [4, 5]])], dim=1)
    theirs, _ = oracle(ours, loops=True)
    x = draw(NODES, F_IN)
    torch.testing.assert_close(ours(x, with_self_loops(edges, NODES)), theirs(x, edges), **CLOSE)


@every_layer
def test_a_node_hears_only_its_neighbours(kind):
    """Change one node: only those with an edge from it move, and gradients to the others are exactly zero."""
    module, edges = layer(kind), one_way_graph()
    x = draw(NODES, F_IN).requires_grad_()
    result = module(x, edges)
    mask = edge_mask(edges, NODES)
    for changed in range(NODES):
        other = x.detach().clone()
        other[changed] += 1
        moved = (module(other, edges) != result).any(1)
        assert torch.equal(moved, mask[:, changed])
    for node in range(NODES):
        (gradient,) = torch.autograd.grad(result[node].sum(), x, retain_graph=True)
        assert torch.equal(gradient.abs().sum(1) > 0, mask[node])


@every_layer
def test_an_isolated_node_gets_the_bias_and_no_nan_spreads(kind):
    module, edges = layer(kind), one_way_graph(loops=False)
    x = draw(NODES, F_IN).requires_grad_()
    result = module(x, edges)
    assert torch.equal(result[0], module.bias)
    (gradient,) = torch.autograd.grad(result.square().sum(), x)
    assert gradient.isfinite().all()
    assert torch.equal(gradient[0], torch.zeros(F_IN, dtype=torch.float64))
    assert torch.equal(module(x, edges[:, :0]), module.bias.expand(NODES, -1))
    with pytest.raises(ValueError, match="hides every key from some query"):
        module.dense(x, edge_mask(edges, NODES))


@every_layer
def test_renumbering_the_nodes_and_reordering_the_edges_changes_nothing_else(kind):
    module, edges, x = layer(kind), one_way_graph(), draw(NODES, F_IN)
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(NODES, generator=generator)  # the new node i is the old node order[i]
    renumbered = order.argsort()[edges][:, torch.randperm(edges.size(1), generator=generator)]
    torch.testing.assert_close(module(x[order], renumbered), module(x, edges)[order], **CLOSE)


def test_on_the_complete_graph_gat_is_a_transformers_attention_with_an_additive_score():
    module, x = layer(GraphAttention), draw(NODES, F_IN)
    complete = torch.cartesian_prod(torch.arange(NODES), torch.arange(NODES)).T
    query, key, value = (t.transpose(0, 1) for t in module.project(x))

    def score(query, key):
        return F.leaky_relu(query + key.transpose(-2, -1), 0.2)

    expected = attend(query, key, value, score=score).transpose(0, 1).flatten(1) + module.bias
    torch.testing.assert_close(module(x, complete), expected, **CLOSE)


def test_gat_ranks_neighbours_alike_for_every_node_and_gatv2_does_not():
    x = draw(NODES, F_IN)
    complete = torch.ones(NODES, NODES, dtype=torch.bool)
    ranks = {}
    for name, kind in LAYERS.items():
        _, weights = layer(kind).dense(x, complete, weights=True)
        ranks[name] = weights.argsort(-1)  # (h, q, k)
    assert torch.equal(ranks["GAT"], ranks["GAT"][:, :1].expand_as(ranks["GAT"]))
    assert not torch.equal(ranks["GATv2"], ranks["GATv2"][:, :1].expand_as(ranks["GATv2"]))


def test_segment_softmax_equals_torch_geometrics_and_is_a_softmax_per_segment():
    scores = (draw(20, HEADS) * 50).requires_grad_()
    segment = torch.randint(6, (20,), generator=torch.Generator().manual_seed(1)) + 1  # 0 and 7 are empty
    weights = segment_softmax(scores, segment, count=8)
    torch.testing.assert_close(weights, pyg_softmax(scores, segment, num_nodes=8), **CLOSE)
    for s in segment.unique():
        torch.testing.assert_close(weights[segment == s], scores[segment == s].softmax(0), **CLOSE)
    assert torch.autograd.gradcheck(lambda x: segment_softmax(x / 50, segment, 8), (scores,))


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_segment_softmax_ignores_a_shift_however_large(shift):
    scores, segment = draw(20, HEADS), torch.arange(20) % 3
    expected = segment_softmax(scores, segment, 3)
    torch.testing.assert_close(segment_softmax(scores + shift, segment, 3), expected, atol=1e-9, rtol=1e-9)


@given(st.lists(st.integers(0, 4), max_size=12), st.sampled_from([(), (3,), (2, 3)]))
def test_segment_sum_equals_a_loop(segment, rest):
    x = draw(len(segment), *rest)
    expected = torch.zeros(5, *rest, dtype=torch.float64)
    for row, place in zip(x, segment, strict=True):
        expected[place] += row
    result = segment_sum(x, torch.tensor(segment, dtype=torch.int64), count=5)
    torch.testing.assert_close(result, expected, **CLOSE)


@pytest.mark.parametrize("loops", [True, False], ids=["self-loops", "isolated nodes"])
def test_gcn_layer_equals_torch_geometrics_in_values_and_gradients(loops):
    edges, x = one_way_graph(loops=loops), draw(NODES, F_IN).requires_grad_()
    theirs = GCNConv(F_IN, D, bias=False, add_self_loops=False).double()
    weight = theirs.lin.weight.detach().T.clone().requires_grad_()
    result, expected = gcn_layer(x, edges, weight), theirs(x, edges)
    torch.testing.assert_close(result, expected, **CLOSE)
    upstream = draw(NODES, D, seed=2)
    ours = torch.autograd.grad(result, [x, weight], upstream)
    x_gradient, weight_gradient = torch.autograd.grad(expected, [x, theirs.lin.weight], upstream)
    torch.testing.assert_close(ours[0], x_gradient, **CLOSE)
    torch.testing.assert_close(ours[1], weight_gradient.T, **CLOSE)


@every_layer
def test_gat_equals_torch_geometrics_layers_one_after_the_other(kind):
    model = drawn(Gat(GatConfig(F_IN, classes=6, d_hidden=D, heads=HEADS, layers=3, layer=kind))).eval()
    edges, x = one_way_graph(), draw(NODES, F_IN)
    first, second, last = (oracle(ours)[0] for ours in model.layers)
    y = last(F.elu(second(F.elu(first(x, edges)), edges)), edges)
    torch.testing.assert_close(model(x, edges), y, **CLOSE)


def test_over_smoothing_many_averages_make_all_nodes_alike():
    edges = with_self_loops(torch.arange(NODES).repeat(2).view(2, -1).roll(1, 1)[:, :NODES], NODES)
    edges = torch.cat([edges, torch.stack([torch.arange(NODES), (torch.arange(NODES) + 1) % NODES])], dim=1)
    x = draw(NODES, 1)
    spread = [x.std().item()]
    for _ in range(60):
        x = gcn_layer(x, edges, torch.eye(1, dtype=torch.float64))
        spread.append(x.std().item())
    assert spread[60] < spread[0] / 50


@every_layer
def test_memory_grows_with_the_edges_not_with_the_square_of_the_nodes(kind):
    module = kind(8, 4, 2)

    def memory(nodes, edges):
        pairs = torch.randint(nodes, (2, edges), generator=torch.Generator().manual_seed(0))
        x = torch.zeros(nodes, 8)
        return peak_bytes(lambda: module(x, pairs).sum().backward())

    assert memory(1000, 40_000) < 4.4 * memory(1000, 10_000)
    assert memory(4000, 10_000) < 4.4 * memory(1000, 10_000)


@every_layer
def test_state_dict_round_trip_gives_the_same_numbers(kind):
    config = GatConfig(F_IN, classes=6, layer=kind)
    model, twin = drawn(Gat(config)).eval(), Gat(config).double().eval()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(draw(NODES, F_IN), one_way_graph()), model(draw(NODES, F_IN), one_way_graph()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_layer
def test_a_gpu_gives_the_same_numbers(kind):
    x, edges = draw(NODES, F_IN), one_way_graph()
    module = layer(kind)
    expected, weights = module(x, edges, weights=True)
    module = module.cuda()
    result, on_gpu = module(x.cuda(), edges.cuda(), weights=True)
    torch.testing.assert_close(result.cpu(), expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(on_gpu.cpu(), weights, atol=1e-9, rtol=1e-9)
    dense = module.dense(x.cuda(), edge_mask(edges.cuda(), NODES))
    torch.testing.assert_close(dense.cpu(), expected, atol=1e-9, rtol=1e-9)
    smoothed = gcn_layer(x.cuda(), edges.cuda(), torch.eye(F_IN, dtype=torch.float64).cuda())
    torch.testing.assert_close(
        smoothed.cpu(), gcn_layer(x, edges, torch.eye(F_IN, dtype=torch.float64)), atol=1e-9, rtol=1e-9
    )
