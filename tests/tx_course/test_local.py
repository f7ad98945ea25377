"""Neighbourhoods drawn in advance: Longformer's numbers, linear memory, and nobody else heard."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LongformerConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from tx_course.attention import attend
from tx_course.local import block_mask, global_mask, local_attention, local_mask, strided_mask
from tx_course.measure import peak_bytes
from tx_course.multi_head import merge_heads, split_heads


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 14), st.integers(1, 16))
def test_local_attention_is_attend_with_the_local_mask(length, reach):
    inputs = [draw(2, length, d, seed=s).requires_grad_() for s, d in enumerate((4, 4, 3))]
    got, expected = local_attention(*inputs, reach), attend(*inputs, local_mask(length, reach))
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-9)
    upstream = draw(*got.shape, seed=5)
    for a, b in zip(
        torch.autograd.grad(got, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("chosen", [[], [0, 5]], ids=["local only", "two positions are global"])
def test_local_and_global_attention_equal_longformers(chosen):
    reach, length, heads = 2, 12, 3
    theirs = LongformerSelfAttention(
        LongformerConfig(hidden_size=12, num_attention_heads=heads, attention_window=[2 * reach]), layer_id=0
    )
    theirs = theirs.double().eval()
    for own, other in (("query", "query_global"), ("key", "key_global"), ("value", "value_global")):
        getattr(theirs, other).load_state_dict(getattr(theirs, own).state_dict())
    x = draw(2, length, 12, seed=1)
    mark = torch.zeros(2, length, dtype=torch.float64)
    mark[:, chosen] = 10000.0
    expected = theirs(
        x,
        attention_mask=mark,
        is_index_masked=mark < 0,
        is_index_global_attn=mark > 0,
        is_global_attn=bool(chosen),
    )[0]
    query, key, value = (split_heads(f(x), heads) for f in (theirs.query, theirs.key, theirs.value))
    mask = local_mask(length, reach) | global_mask(length, chosen)
    got = merge_heads(attend(query, key, value, mask))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)  # theirs does its softmax in float32


@given(st.integers(2, 20), st.integers(2, 6))
def test_local_and_strided_together_reach_everything_in_two_steps(length, stride):
    step = (local_mask(length, stride) | strided_mask(length, stride)).double()
    assert (step @ step > 0).all()


def test_a_block_mask_repeats_its_layout():
    layout = torch.tensor([[True, False, True], [False, True, False]])
    expected = layout[torch.arange(8) // 4][:, torch.arange(12) // 4]
    assert torch.equal(block_mask(layout, 4), expected)


def test_memory_in_training_is_linear_in_the_length():
    def train(length):
        inputs = [torch.randn(1, 2, length, 16, requires_grad=True) for _ in range(3)]
        return peak_bytes(lambda: local_attention(*inputs, reach=32).sum().backward())

    assert train(2048) < 2.05 * train(1024)


def test_a_reach_of_nothing_and_unequal_lengths_are_refused():
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match="reach=0"):
        local_attention(x, x, x, reach=0)
    with pytest.raises(ValueError, match="4 queries and 3 keys"):
        local_attention(x, x[:3], x[:3], reach=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_numbers():
    inputs = [draw(2, 50, d, seed=s) for s, d in enumerate((4, 4, 3))]
    on_gpu = local_attention(*(x.cuda() for x in inputs), reach=7).cpu()
    torch.testing.assert_close(on_gpu, local_attention(*inputs, reach=7), atol=1e-9, rtol=1e-9)
