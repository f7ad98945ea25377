"""Attention by blocks is exact, forward and backward, and its memory is linear in the length."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tx_course.attention import attend
from tx_course.measure import peak_bytes
from tx_course.multi_head import causal_mask
from tx_course.online_softmax import online_softmax_attention


def qkv(q=5, k=7, d=4, e=3, leading=(2, 3), scale=1.0):
    generator = torch.Generator().manual_seed(0)
    shapes = ((*leading, q, d), (*leading, k, d), (*leading, k, e))
    return [
        (scale * torch.randn(*s, dtype=torch.float64, generator=generator)).requires_grad_() for s in shapes
    ]


MASKS = {
    "none": None,
    "causal": causal_mask(7)[:5],
    "the first blocks hidden": torch.tensor([False] * 5 + [True] * 2),
    "padding per batch": torch.tensor([[True] * 7, [False, True] + [False] * 5])[:, None, None],
    "per head": torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.6,
    "one column for all": torch.ones(5, 1, dtype=torch.bool),
}
MASKS["per head"][..., 3] = True


@pytest.mark.parametrize("block", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_blocks_give_attends_values_and_gradients(mask, block):
    inputs = qkv()
    got, expected = online_softmax_attention(*inputs, mask, block), attend(*inputs, mask, weights=True)[0]
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-10)
    upstream = torch.randn(got.shape, dtype=got.dtype, generator=torch.Generator().manual_seed(2))
    for a, b in zip(
        torch.autograd.grad(got, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-9)


def test_the_backward_pass_agrees_with_finite_differences():
    inputs = qkv(q=3, k=5, leading=(2,))
    mask = MASKS["causal"][:3, :5]
    assert torch.autograd.gradcheck(lambda *x: online_softmax_attention(*x, mask, 2), inputs)


@given(st.floats(0, 200), st.integers(1, 8))
def test_scores_of_any_size_give_no_overflow(scale, block):
    inputs = qkv(scale=scale)
    got = online_softmax_attention(*inputs, None, block)
    torch.testing.assert_close(got, attend(*inputs), atol=1e-9, rtol=1e-9)
    got.sum().backward()
    assert all(x.grad.isfinite().all() for x in inputs)


def training_memory(attention, length):
    inputs = [torch.randn(1, 2, length, 16, requires_grad=True) for _ in range(3)]
    return peak_bytes(lambda: attention(*inputs).sum().backward())


def test_memory_in_training_is_linear_in_the_length():
    online = [training_memory(lambda *x: online_softmax_attention(*x, block=64), n) for n in (1024, 2048)]
    square = [training_memory(lambda *x: attend(*x, weights=True)[0], n) for n in (1024, 2048)]
    assert online[1] < 2.05 * online[0]
    assert square[1] > 3.5 * square[0]


def test_wrong_arguments_are_refused():
    inputs = qkv()
    with pytest.raises(ValueError, match="got 0"):
        online_softmax_attention(*inputs, block=0)
    with pytest.raises(ValueError, match="boolean"):
        online_softmax_attention(*inputs, torch.ones(7))
    with pytest.raises(ValueError, match="leaves each query a key"):
        online_softmax_attention(*inputs, torch.zeros(7, dtype=torch.bool))
    with pytest.raises(ValueError, match="leading axes"):
        online_softmax_attention(inputs[0], inputs[1][0], inputs[2])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_gpu_gives_the_same_values_and_gradients(mask):
    inputs = qkv()
    on_gpu = [x.detach().cuda().requires_grad_() for x in inputs]
    expected = online_softmax_attention(*inputs, mask, 2)
    got = online_softmax_attention(*on_gpu, None if mask is None else mask.cuda(), 2)
    torch.testing.assert_close(got.cpu(), expected, atol=1e-9, rtol=1e-9)
    expected.sum().backward()
    got.sum().backward()
    for a, b in zip(on_gpu, inputs, strict=True):
        torch.testing.assert_close(a.grad.cpu(), b.grad, atol=1e-9, rtol=1e-9)
