"""Many heads: equal to PyTorch's module, and no mask ever leaks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tx_course.parity import assert_same, draw, gpu, packed, randomise
from tx_course.multi_head import MultiHeadAttention, causal_mask, merge_heads, padding_mask, split_heads

M, H = 12, 3
sizes = st.integers(1, 5)


def rename(weights):
    return packed(weights, [("", "")])


def real_keys():
    return torch.tensor([[True] * 7, [True] * 4 + [False] * 3])


MASKS = {
    "no mask": (None, {}),
    "causal": (torch.ones(5, 7).tril().bool(), {"attn_mask": ~torch.ones(5, 7).tril().bool()}),
    "padding": (real_keys()[:, None, None], {"key_padding_mask": ~real_keys()}),
}


@pytest.mark.parametrize("mask, theirs_mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("weights", [False, True], ids=["fused", "with weights"])
def test_it_is_pytorchs_multihead_attention(mask, theirs_mask, weights):
    assert_same(
        MultiHeadAttention(M, H),
        torch.nn.MultiheadAttention(M, H, batch_first=True),
        rename,
        lambda module, *x: module(*x, mask=mask, weights=weights),
        lambda module, *x: module(*x, need_weights=weights, average_attn_weights=False, **theirs_mask)[
            : 1 + weights
        ],
        [draw(2, 5, M, seed=1), draw(2, 7, M, seed=2), draw(2, 7, M, seed=3)],
    )


def test_keys_and_values_come_from_the_query_unless_given():
    module, x, y = randomise(MultiHeadAttention(M, H)), draw(2, 5, M), draw(2, 7, M, seed=1)
    assert torch.equal(module(x), module(x, x, x))
    assert torch.equal(module(x, y), module(x, y, y))
    assert not torch.allclose(module(x, y), module(x, y, y + 1))


def test_a_bias_on_the_scores_is_added_as_pytorch_adds_a_float_mask():
    bias = draw(5, 7, seed=9)
    assert_same(
        MultiHeadAttention(M, H),
        torch.nn.MultiheadAttention(M, H, batch_first=True),
        rename,
        lambda module, x, y: module(x, y, bias=bias),
        lambda module, x, y: module(x, y, y, attn_mask=bias, need_weights=False)[0],
        [draw(2, 5, M, seed=1), draw(2, 7, M, seed=2)],
    )


@pytest.mark.parametrize("weights", [False, True], ids=["fused", "with weights"])
def test_hidden_keys_and_values_get_a_gradient_of_exactly_zero(weights):
    module = randomise(MultiHeadAttention(M, H))
    query, source = draw(2, 5, M), draw(2, 7, M, seed=1).requires_grad_()
    out = module(query, source, mask=real_keys()[:, None, None], weights=weights)
    (out[0] if weights else out).square().sum().backward()
    assert (source.grad[~real_keys()] == 0).all()
    assert (source.grad[real_keys()] != 0).all()


def test_under_a_causal_mask_the_future_has_a_gradient_of_exactly_zero():
    module, x = randomise(MultiHeadAttention(M, H)), draw(1, 6, M).requires_grad_()
    for i in range(6):
        (gradient,) = torch.autograd.grad(module(x, mask=causal_mask(6))[:, i].sum(), x)
        assert (gradient[:, i + 1 :] == 0).all()
        assert (gradient[:, : i + 1] != 0).all()


def test_without_positions_shuffling_the_words_shuffles_the_answers():
    module, x, order = randomise(MultiHeadAttention(M, H)), draw(2, 5, M), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order])


@given(b=sizes, h=sizes, q=sizes, d=sizes)
def test_merging_undoes_splitting_and_head_i_is_the_ith_slice_of_features(b, h, q, d):
    x = draw(b, q, h * d)
    heads = split_heads(x, h)
    assert heads.shape == (b, h, q, d)
    assert torch.equal(heads[:, -1], x[..., -d:])
    assert torch.equal(merge_heads(heads), x)


def test_masks_join_with_and():
    tokens = torch.tensor([[4, 5, 6], [4, 5, 0]])
    joined = causal_mask(3) & padding_mask(tokens)
    assert joined.shape == (2, 1, 3, 3)
    assert joined[1, 0].tolist() == [[True, False, False], [True, True, False], [True, True, False]]


def test_heads_that_do_not_divide_the_features_are_refused():
    with pytest.raises(ValueError, match="divisible by 5 heads"):
        MultiHeadAttention(M, 5)
    with pytest.raises(ValueError, match="divisible by 5 heads"):
        split_heads(draw(2, 3, M), 5)


@gpu
def test_the_gpu_gives_the_same_numbers():
    module, x = randomise(MultiHeadAttention(M, H)), draw(2, 5, M)
    expected = module(x, mask=causal_mask(5))
    actual = module.cuda()(x.cuda(), mask=causal_mask(5, "cuda"))
    torch.testing.assert_close(actual.cpu(), expected, atol=1e-10, rtol=1e-10)
