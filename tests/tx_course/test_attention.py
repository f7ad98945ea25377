"""The core of the library: equal to PyTorch's own kernel, and true to what a weighted average promises."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tx_course import attention
from tx_course.attention import SCORES, attend, attention_weights, nadaraya_watson, softmax
from tx_course.measure import peak_bytes

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}
sizes = st.integers(1, 6)


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def qkv(q=5, k=7, d=4, e=3, leading=(2, 3), dtype=torch.float64):
    return (
        draw(*leading, q, d, dtype=dtype, seed=1),
        draw(*leading, k, d, dtype=dtype, seed=2),
        draw(*leading, k, e, dtype=dtype, seed=3),
    )


def open_mask(*shape, seed=4):
    """A random mask that leaves every query at least one key."""
    mask = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[..., 0] |= ~mask.any(-1)
    return mask


MASKS = {
    "none": None,
    "full": open_mask(2, 3, 5, 7),
    "per batch": open_mask(2, 1, 1, 7),
    "one row for all": open_mask(7),
    "causal": torch.ones(5, 7, dtype=torch.bool).tril(),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("weights", [False, True], ids=["fused", "explicit"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_attend_equals_pytorchs_kernel_in_values_and_gradients(mask, weights, dtype):
    ours = [x.requires_grad_() for x in qkv(dtype=dtype)]
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    out = attend(*ours, mask=mask, weights=weights)
    out = out[0] if weights else out
    their_mask = None if mask is None else mask.expand(2, 3, 5, 7)
    expected = F.scaled_dot_product_attention(*theirs, attn_mask=their_mask)
    upstream = draw(*out.shape, dtype=dtype, seed=5)
    out.backward(upstream)
    expected.backward(upstream)
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_causal_mask_equals_is_causal():
    query, key, value = qkv(q=7, k=7)
    mask = torch.ones(7, 7, dtype=torch.bool).tril()
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(attend(query, key, value, mask), expected)


@pytest.mark.parametrize("bias", [draw(3, 5, 7), draw(2, 1, 5, 7)], ids=["per head", "per batch"])
@pytest.mark.parametrize("mask", [None, MASKS["full"]], ids=["open", "masked"])
def test_bias_gives_the_same_numbers_on_both_paths(bias, mask):
    fused = attend(*qkv(), mask=mask, bias=bias)
    explicit, weights = attend(*qkv(), mask=mask, bias=bias, weights=True)
    torch.testing.assert_close(fused, explicit)
    assert (fused - attend(*qkv(), mask=mask)).abs().max() > 0.05
    if mask is not None:
        assert weights[~mask].abs().max() == 0


@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (2, 1, 3)], ids=str)
def test_any_number_of_leading_axes(leading):
    query, key, value = qkv(leading=leading)
    assert attend(query, key, value).shape == (*leading, 5, 3)
    torch.testing.assert_close(attend(query, key, value), attend(query, key, value, weights=True)[0])


def test_leading_axes_broadcast():
    query, (_, key, value) = draw(2, 1, 5, 4), qkv(leading=(1, 3))
    fused = attend(query, key, value)
    assert fused.shape == (2, 3, 5, 3)
    torch.testing.assert_close(fused, attend(query, key, value, weights=True)[0])
    torch.testing.assert_close(fused[1, 2], attend(query[1, 0], key[0, 2], value[0, 2]))


@settings(deadline=None, max_examples=40)
@given(q=sizes, k=sizes, d=sizes, seed=st.integers(0, 99))
def test_rows_of_weights_sum_to_one_and_hidden_keys_get_none(q, k, d, seed):
    mask = open_mask(q, k, seed=seed)
    weights = attention_weights(draw(q, d, seed=seed), draw(k, d, seed=seed + 1), mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones(q, dtype=torch.float64))
    assert (weights >= 0).all()
    assert (weights[~mask] == 0).all()


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 7), seed=st.integers(0, 99))
def test_self_attention_is_permutation_equivariant(n, seed):
    x = draw(n, 3, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(attend(x[order], x[order], x[order]), attend(x, x, x)[order])


@settings(deadline=None, max_examples=40)
@given(k=st.integers(2, 7), seed=st.integers(0, 99))
def test_order_of_keys_does_not_matter(k, seed):
    query, key, value = qkv(k=k)
    order = torch.randperm(k, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        attend(query, key[..., order, :], value[..., order, :]), attend(query, key, value)
    )


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 99))
def test_output_lies_between_the_smallest_and_the_largest_value(seed):
    query, key, value = draw(5, 4, seed=seed), draw(7, 4, seed=seed + 1), draw(7, 3, seed=seed + 2)
    out = attend(query, key, value)
    assert (out <= value.amax(0) + 1e-12).all() and (out >= value.amin(0) - 1e-12).all()


@pytest.mark.parametrize("weights", [False, True], ids=["fused", "explicit"])
def test_hidden_keys_have_no_influence_and_no_gradient(weights):
    mask = MASKS["per batch"]
    hidden = ~mask[:, :, 0].expand(2, 3, 7)
    query, key, value = (x.requires_grad_() for x in qkv())
    first = attend(query, key, value, mask, weights=weights)
    first = first[0] if weights else first
    moved = attend(query, key + 9 * hidden[..., None], value - 9 * hidden[..., None], mask)
    torch.testing.assert_close(first, moved)
    first.square().sum().backward()
    for x in (key, value):
        assert (x.grad[hidden] == 0).all()
        assert (x.grad[~hidden] != 0).any()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("weights", [False, True], ids=["fused", "explicit"])
def test_huge_scores_stay_finite(weights, dtype):
    query, key, value = qkv(dtype=dtype)
    out = attend(query * 1e4, key * 1e4, value, weights=weights)
    assert (out[0] if weights else out).isfinite().all()


@pytest.mark.parametrize("mask", [None, MASKS["full"]], ids=["open", "masked"])
def test_gradients_of_the_explicit_path_agree_with_finite_differences(mask):
    inputs = [x.requires_grad_() for x in qkv()]
    assert torch.autograd.gradcheck(lambda *x: attend(*x, mask=mask, weights=True), inputs)


def test_softmax_equals_pytorchs_and_ignores_a_shift():
    x = draw(3, 5) * 10
    torch.testing.assert_close(softmax(x), x.softmax(-1))
    torch.testing.assert_close(softmax(x, dim=0), x.softmax(0))
    torch.testing.assert_close(softmax(x + 1e6), softmax(x), atol=1e-8, rtol=1e-8)
    assert torch.autograd.gradcheck(softmax, (draw(3, 5).requires_grad_(),))


def test_temperature_sharpens_and_evens_out():
    x = torch.tensor([1.0, 2.0, 4.0])
    torch.testing.assert_close(softmax(x, temperature=2.0), (x / 2).softmax(-1))
    torch.testing.assert_close(softmax(x, temperature=1e4), torch.full((3,), 1 / 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(softmax(x, temperature=1e-2), torch.tensor([0.0, 0.0, 1.0]))


def by_loops(query, key, formula):
    return torch.stack([torch.stack([formula(q, k) for k in key]) for q in query])


def test_scores_equal_their_formulas_one_pair_at_a_time():
    query, key, same = draw(5, 4, seed=1), draw(7, 6, seed=2), draw(7, 4, seed=3)
    w, wq, wk, v = draw(4, 6, seed=4), draw(8, 4, seed=5), draw(8, 6, seed=6), draw(8, seed=7)
    glued = torch.cat([wq, wk], dim=1)
    cases = {
        "dot": (SCORES["dot"](query, same), by_loops(query, same, lambda q, k: q @ k)),
        "scaled_dot": (SCORES["scaled_dot"](query, same), by_loops(query, same, lambda q, k: q @ k / 2)),
        "general": (SCORES["general"](query, key, w), by_loops(query, key, lambda q, k: q @ w @ k)),
        "additive": (
            SCORES["additive"](query, key, wq, wk, v),
            by_loops(query, key, lambda q, k: v @ torch.tanh(wq @ q + wk @ k)),
        ),
        "concat": (
            SCORES["concat"](query, key, glued, v),
            by_loops(query, key, lambda q, k: v @ torch.tanh(glued @ torch.cat([q, k]))),
        ),
    }
    assert cases.keys() == SCORES.keys()
    for ours, expected in cases.values():
        torch.testing.assert_close(ours, expected)


def test_scores_of_any_kind_can_be_given_to_attend():
    query, key, value = qkv()
    scored = partial(SCORES["general"], weight=torch.eye(4, dtype=torch.float64) / 2)
    torch.testing.assert_close(attend(query, key, value, score=scored), attend(query, key, value))


def test_kernel_regression_equals_the_textbook_formula():
    query, key, value = draw(4, seed=1), draw(9, seed=2), draw(9, seed=3)
    kernel = torch.exp(-((query[:, None] - key) ** 2) / (2 * 0.3**2))
    expected = (kernel * value).sum(1) / kernel.sum(1)
    torch.testing.assert_close(nadaraya_watson(query, key, value, bandwidth=0.3), expected)


def test_bad_input_says_what_was_expected_what_came_and_what_to_do():
    query, key, value = qkv()
    closed = torch.ones(5, 7, dtype=torch.bool)
    closed[2] = False
    for weights in (False, True):
        with pytest.raises(ValueError, match="hides every key from some query"):
            attend(query, key, value, closed, weights=weights)
        with pytest.raises(ValueError, match=r"mask must be boolean .* got torch.float32; write"):
            attend(query, key, value, torch.ones(5, 7), weights=weights)
        with pytest.raises(ValueError, match="one value per key, got 7 keys and 6 values"):
            attend(query, key, value[..., :6, :], weights=weights)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        softmax(torch.zeros(2), temperature=0)
    with pytest.raises(ValueError, match="bandwidth must be positive, got -1"):
        nadaraya_watson(torch.zeros(2), torch.zeros(2), torch.zeros(2), bandwidth=-1)


@pytest.mark.parametrize("leading", [(), (1,), (1, 1)], ids=str)
def test_memory_grows_with_the_length_and_not_with_its_square(leading):
    used = [peak_bytes(partial(attend, *qkv(n, n, e=4, leading=leading))) for n in (256, 512, 1024)]
    assert used[2] < 2.2 * used[1] < 2.2 * 2.2 * used[0]


def test_the_explicit_path_runs_only_when_somebody_asks(monkeypatch):
    asked = []
    monkeypatch.setattr(attention, "attention_weights", lambda *a: asked.append(a) or attention_weights(*a))
    attend(*qkv())
    assert not asked
    attend(*qkv(), weights=True)
    assert len(asked) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_gpu_gives_the_same_numbers(mask, dtype):
    on_gpu = [x.cuda() for x in qkv(dtype=dtype)]
    mask_on_gpu = None if mask is None else mask.cuda()
    expected = attend(*qkv(dtype=dtype), mask=mask)
    for out in (attend(*on_gpu, mask=mask_on_gpu), attend(*on_gpu, mask=mask_on_gpu, weights=True)[0]):
        torch.testing.assert_close(out.cpu(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
