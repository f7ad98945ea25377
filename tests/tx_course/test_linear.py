"""Linear attention gives the numbers of its own quadratic form, and hears no more than it may."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tx_course.attention import attend
from tx_course.linear import causal_linear_attention, kernel_score, linear_attention
from tx_course.measure import peak_bytes
from tx_course.multi_head import causal_mask


def qkv(q=6, k=6, d=4, e=3, leading=(2, 3)):
    generator = torch.Generator().manual_seed(0)
    shapes = ((*leading, q, d), (*leading, k, d), (*leading, k, e))
    return [torch.randn(*s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]


def compare(got, expected, inputs):
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-9)
    upstream = torch.randn(got.shape, dtype=got.dtype, generator=torch.Generator().manual_seed(1))
    for a, b in zip(
        torch.autograd.grad(got, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-9)


def test_linear_attention_is_attend_with_the_kernels_score():
    inputs = qkv(q=5, k=7)
    compare(linear_attention(*inputs), attend(*inputs, score=kernel_score), inputs)


def test_a_mask_over_keys_hides_them_from_every_query():
    inputs = qkv(q=5, k=7)
    mask = torch.tensor([[True, False, True, True, False, True, True], [False] * 6 + [True]])[:, None]
    compare(
        linear_attention(*inputs, mask=mask),
        attend(*inputs, mask=mask[:, :, None], score=kernel_score),
        inputs,
    )


@given(st.integers(1, 9), st.integers(1, 10))
def test_the_causal_form_is_the_causal_square_for_every_chunk(length, chunk):
    inputs = qkv(q=length, k=length)
    expected = attend(*inputs, mask=causal_mask(length), score=kernel_score)
    compare(causal_linear_attention(*inputs, chunk=chunk), expected, inputs)


def test_the_causal_form_hears_nothing_of_the_future():
    query, key, value = qkv()
    out = causal_linear_attention(query, key, value, chunk=2)
    for grad in torch.autograd.grad(out[..., 2, :].sum(), (key, value)):
        assert not grad[..., 3:, :].any()
        assert grad[..., :3, :].abs().sum(-1).all()


@pytest.mark.parametrize("attention", [linear_attention, causal_linear_attention])
def test_memory_grows_with_the_length_and_not_with_its_square(attention):
    def train(length):
        inputs = [x.detach().requires_grad_() for x in qkv(length, length)]
        return peak_bytes(lambda: attention(*inputs).sum().backward())

    assert train(2048) < 2.1 * train(1024)


def test_wrong_masks_and_lengths_are_refused():
    query, key, value = qkv(q=5, k=7)
    with pytest.raises(ValueError, match="boolean"):
        linear_attention(query, key, value, mask=torch.ones(7))
    with pytest.raises(ValueError, match="leaves each row a key"):
        linear_attention(query, key, value, mask=torch.zeros(7, dtype=torch.bool))
    with pytest.raises(ValueError, match="got 5 and 7"):
        causal_linear_attention(query, key, value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("attention", [linear_attention, causal_linear_attention])
def test_a_gpu_gives_the_same_numbers(attention):
    inputs = qkv(q=100, k=100)
    on_gpu = attention(*(x.detach().cuda() for x in inputs)).cpu()
    torch.testing.assert_close(on_gpu, attention(*inputs), atol=1e-9, rtol=1e-9)
