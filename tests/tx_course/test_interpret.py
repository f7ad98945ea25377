"""Pruning is zeroing; rollout, flow, importance and disagreement are their formulas worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tx_course.bert import Bert, BertConfig
from tx_course.interpret import (
    attention_flow,
    disagreement,
    head_importance,
    prune_heads,
    rollout,
)
from tx_course.multi_head import MultiHeadAttention

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def bert(seed=0, layers=2, heads=4):
    torch.manual_seed(seed)
    config = BertConfig(10, 16, heads, layers, d_hidden=24, max_length=8, dropout=0.0)
    model = Bert(config).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.4)
    return model


def random_weights(layers=3, heads=2, length=5, batch=2, seed=0):
    return [draw(batch, heads, length, length, seed=seed + i).softmax(-1) for i in range(layers)]


def test_rollout_is_the_product_of_half_attention_half_identity_later_layers_left():
    layers = random_weights()
    expected = np.stack([np.eye(5)] * 2)
    for weights in layers:
        expected = np.einsum("bij,bjk->bik", 0.5 * weights.numpy().mean(1) + 0.5 * np.eye(5), expected)
    np.testing.assert_allclose(rollout(layers).numpy(), expected, atol=1e-12)
    assert not np.allclose(rollout(layers[::-1]).numpy(), expected)


@given(st.integers(1, 5), st.integers(1, 6))
def test_rollouts_rows_sum_to_one(layers, length):
    result = rollout(random_weights(layers, length=length))
    torch.testing.assert_close(result.sum(-1), torch.ones(2, length, dtype=torch.float64))
    assert (result >= 0).all()


def test_causal_attention_rolls_out_causally():
    layers = [w.tril() / w.tril().sum(-1, keepdim=True) for w in random_weights()]
    assert not rollout(layers).triu(1).any()


def test_rollout_refuses_cross_attention_and_an_empty_list():
    with pytest.raises(ValueError, match="as many queries as keys"):
        rollout([torch.ones(1, 1, 2, 3)])
    with pytest.raises(ValueError, match="at least one layer"):
        rollout([])


def test_flow_through_one_layer_is_its_matrix_and_through_two_the_narrowest_pipes():
    first, second = (w[0] for w in random_weights(layers=2, length=3))
    a, b = ((w.mean(0) + torch.eye(3)) / 2 for w in (first, second))
    torch.testing.assert_close(attention_flow([first], query=1), a[1].float())
    # Two layers: into position j from query i there is one path over each middle position.
    expected = torch.minimum(b[1][:, None], a).sum(0)
    torch.testing.assert_close(attention_flow([first, second], query=1), expected.float())


def squared_error(model, batch):
    return (model(batch[0])[:, 0].sum(-1) - batch[1]).square().mean()


def test_importance_is_the_mean_absolute_change_when_a_head_is_turned_up_a_little():
    model, target = bert(), draw(2)
    got = head_importance(model, squared_error, [(TOKENS, target)])
    assert list(got) == ["layers.0.attention", "layers.1.attention"]
    step, d = 1e-5, 4
    for name, importance in got.items():
        columns = model.get_submodule(name).output.weight
        for head in range(4):
            slopes = []
            for example in range(2):
                batch = (TOKENS[example : example + 1], target[example : example + 1])
                losses = []
                for sign in (1, -1):
                    saved = columns.detach().clone()
                    with torch.no_grad():
                        columns[:, head * d : (head + 1) * d] *= 1 + sign * step
                        losses.append(squared_error(model, batch).item())
                        columns.copy_(saved)
                slopes.append(abs(losses[0] - losses[1]) / (2 * step))
            assert importance[head].item() == pytest.approx(np.mean(slopes), rel=1e-5)


def test_importance_takes_the_absolute_value_before_the_mean():
    layer = MultiHeadAttention(8, 2).double()
    x = draw(1, 3, 8)

    def up_for_one_and_down_for_the_other(model, batch):
        return (model(batch[0]).sum((1, 2)) * batch[1]).mean()

    both = (torch.cat([x, x]), torch.tensor([1.0, -1.0], dtype=torch.float64))
    alone = (x, torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(
        head_importance(layer, up_for_one_and_down_for_the_other, [both]),
        head_importance(layer, up_for_one_and_down_for_the_other, [alone]),
    )
    assert head_importance(layer, up_for_one_and_down_for_the_other, [alone])[""].min() > 0


def test_importance_averages_over_batches_leaves_the_model_alone_and_works_without_gradients():
    model, target = bert(), draw(2)
    for weight in model.parameters():
        weight.requires_grad_(False)
    whole = head_importance(model, squared_error, [(TOKENS, target)])
    with torch.no_grad():
        halves = head_importance(
            model, squared_error, [(TOKENS[i : i + 1], target[i : i + 1]) for i in (0, 1)]
        )
    torch.testing.assert_close(whole, halves)
    assert not any(m._forward_pre_hooks for m in model.modules())


def zeroed(model, heads):
    """``model`` with the columns of some heads set to 0 in the output projection, and nothing removed."""
    model = prune_heads(model, {})
    with torch.no_grad():
        for name, removed in heads.items():
            output = model.get_submodule(name).output.weight
            d = output.size(1) // model.get_submodule(name).heads
            for head in removed:
                output[:, head * d : (head + 1) * d] = 0
    return model


HEADS = {"layers.0.attention": [1, 3], "layers.1.attention": [0]}


def test_pruning_heads_equals_zeroing_what_they_say():
    model = bert()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    pruned = prune_heads(model, HEADS)
    torch.testing.assert_close(pruned(TOKENS), zeroed(model, HEADS)(TOKENS), atol=1e-12, rtol=1e-10)
    assert not torch.allclose(pruned(TOKENS), model(TOKENS))
    torch.testing.assert_close(model.state_dict(), before, atol=0, rtol=0)


def test_pruning_removes_the_rows_and_leaves_the_kept_heads_weights_unchanged():
    model = bert()
    pruned = prune_heads(model, HEADS)
    count = [sum(p.numel() for p in m.parameters()) for m in (model, pruned)]
    assert count[0] - count[1] == 3 * (4 * 16 * 4 + 3 * 4)  # per head: four 16 by 4 blocks and three biases
    x = draw(2, 5, 16)
    attention, smaller = (m.layers[0].attention for m in (model, pruned))
    torch.testing.assert_close(smaller(x, weights=True)[1], attention(x, weights=True)[1][:, [0, 2]])
    smaller(x).sum().backward()
    assert all(p.grad is not None for p in smaller.parameters())


def test_heads_can_be_pruned_in_steps():
    model = bert()
    steps = prune_heads(prune_heads(model, {"layers.0.attention": [1]}), {"layers.0.attention": [2]})
    at_once = prune_heads(model, {"layers.0.attention": [1, 3]})
    torch.testing.assert_close(steps.state_dict(), at_once.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({"layers.0.attention": [0, 1, 2, 3]}, "some, not all, of the 4 heads"),
        ({"layers.0.attention": [4]}, r"got \[4\]"),
        ({"layers.7.attention": [0]}, "'layers.7.attention'"),
        ({"layers.0.feed_forward": [0]}, "MultiHeadAttention"),
    ],
)
def test_heads_that_cannot_be_pruned_are_named(heads, message):
    with pytest.raises(ValueError, match=message):
        prune_heads(bert(), heads)


def test_disagreement_is_minus_the_mean_over_all_pairs_of_heads():
    values, outputs = draw(2, 3, 5, 4), draw(2, 3, 6, 4, seed=1)
    weights = draw(2, 3, 6, 5, seed=2).softmax(-1)
    got = disagreement(values, weights, outputs)

    def cosine(a, b):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))

    def pairs(x, alike):
        x = x.numpy()
        return -np.mean([alike(x[:, i], x[:, j]).mean() for i in range(3) for j in range(3)])

    assert got.subspace.item() == pytest.approx(pairs(values, cosine))
    assert got.output.item() == pytest.approx(pairs(outputs, cosine))
    assert got.position.item() == pytest.approx(pairs(weights, lambda a, b: np.abs(a * b).sum(-1)))


def test_training_for_disagreement_turns_what_heads_say_apart():
    outputs = torch.nn.Parameter(draw(1, 1, 6, 4).repeat(1, 2, 1, 1) + 0.01 * draw(1, 2, 6, 4, seed=1))
    weights = torch.full((1, 2, 6, 6), 1 / 6, dtype=torch.float64)
    optimizer = torch.optim.Adam([outputs], 0.1)
    for _ in range(200):
        loss = -disagreement(outputs, weights, outputs).output
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    first, second = outputs.unbind(1)
    assert F.cosine_similarity(first, second, dim=-1).max() < -0.99


def test_identical_heads_that_look_evenly_overlap_least():
    """The pairs of a head with itself count too, so the position term also rewards spreading out."""
    even, sharp = torch.full((1, 2, 4, 4), 0.25), torch.eye(4).expand(1, 2, 4, 4)
    assert disagreement(even, even, even).position == -0.25
    assert disagreement(even, sharp, even).position == -1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_importance_rollout_and_pruned_model():
    model, target = bert(), draw(2)
    expected = head_importance(model, squared_error, [(TOKENS, target)])
    pruned = prune_heads(model, HEADS)(TOKENS)
    model = model.cuda()
    got = head_importance(model, squared_error, [(TOKENS.cuda(), target.cuda())])
    torch.testing.assert_close({k: v.cpu() for k, v in got.items()}, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(prune_heads(model, HEADS)(TOKENS.cuda()).cpu(), pruned, atol=1e-9, rtol=1e-9)
    layers = random_weights()
    torch.testing.assert_close(rollout([w.cuda() for w in layers]).cpu(), rollout(layers))
