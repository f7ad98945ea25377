"""RoPE and ALiBi: equal to implementations nobody here wrote, and a matter of distance only."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rotary_embedding_torch import RotaryEmbedding
from transformers import LlamaConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from tx_course.attention import attention_weights
from tx_course.multi_head import causal_mask
from tx_course.positions import alibi, alibi_slopes, rope


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_rope_equals_rotary_embedding_torch():
    x = draw(2, 3, 9, 8)
    theirs = RotaryEmbedding(dim=8).double()
    theirs.freqs.data = 10000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)  # theirs were float32's
    torch.testing.assert_close(rope(x), theirs.rotate_queries_or_keys(x), atol=1e-9, rtol=1e-9)


def test_rope_equals_llamas_with_the_features_in_its_order():
    query, key = draw(2, 3, 9, 8, seed=1), draw(2, 3, 9, 8, seed=2)
    theirs = LlamaRotaryEmbedding(LlamaConfig(hidden_size=24, num_attention_heads=3))
    theirs.inv_freq = 10000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    angle = torch.arange(9)[:, None] * theirs.inv_freq
    cos, sin = torch.cat([angle, angle], -1).cos()[None], torch.cat([angle, angle], -1).sin()[None]
    their_cos, their_sin = theirs(query.float(), torch.arange(9)[None])
    torch.testing.assert_close((their_cos, their_sin), (cos.float(), sin.float()), atol=1e-6, rtol=0)
    order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])  # first halves of the pairs, then second halves
    got = apply_rotary_pos_emb(query[..., order], key[..., order], cos, sin)
    torch.testing.assert_close(rope(query)[..., order], got[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(rope(key)[..., order], got[1], atol=1e-9, rtol=1e-9)


@given(st.integers(0, 1000))
def test_rotated_scores_depend_on_the_distance_alone(shift):
    query, key, place = draw(4, 6, seed=3), draw(4, 6, seed=4), torch.arange(4)
    here = rope(query, place) @ rope(key, place).T
    there = rope(query, place + shift) @ rope(key, place + shift).T
    torch.testing.assert_close(here, there, atol=1e-9, rtol=1e-9)


def test_rotation_changes_no_length_and_leaves_position_zero():
    x = draw(2, 5, 8)
    torch.testing.assert_close(rope(x).norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rope(x)[:, 0], x[:, 0])


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16, 20])
def test_slopes_and_weights_equal_blooms(heads):
    bloom = build_alibi_tensor(torch.ones(1, 7, dtype=torch.long), heads, torch.float64).view(heads, 1, 7)
    torch.testing.assert_close(
        alibi_slopes(heads), bloom[:, 0, 1], atol=1e-9, rtol=1e-6
    )  # theirs are float32's
    query, key = draw(heads, 7, 4, seed=5), draw(heads, 7, 4, seed=6)
    ours = attention_weights(query, key, causal_mask(7), bias=alibi(heads, 7))
    theirs = attention_weights(query, key, causal_mask(7), bias=bloom)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_the_bias_while_decoding_is_the_full_biass_last_rows():
    assert torch.equal(alibi(4, queries=2, keys=9), alibi(4, queries=9)[:, -2:])


def test_an_odd_number_of_features_is_refused():
    with pytest.raises(ValueError, match="got 3"):
        rope(torch.zeros(2, 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_rotates_alike():
    x = draw(2, 9, 8)
    torch.testing.assert_close(rope(x.cuda()).cpu(), rope(x), atol=1e-9, rtol=1e-9)
