"""A cache changes no number, and heads that share keys are heads whose keys are equal."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention

from tx_course.bert import Gpt, GptConfig
from tx_course.decoding import (
    GroupedQueryAttention,
    KVCache,
    cached_attention,
    cached_logits,
    future_mask,
    generate,
    new_caches,
)
from tx_course.multi_head import MultiHeadAttention, causal_mask

CONFIG = GptConfig(vocabulary=31, d_model=24, heads=3, layers=2, d_hidden=48, max_length=16)


@pytest.fixture
def gpt():
    torch.manual_seed(0)
    model = Gpt(CONFIG).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    return model


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomise(module):
    with torch.no_grad():
        for index, weight in enumerate(module.parameters()):
            weight.copy_(draw(*weight.shape, seed=index) * 0.5)
    return module


@pytest.mark.parametrize("pieces", [[8], [1] * 8, [3, 1, 4], [5, 3]], ids=str)
def test_logits_in_pieces_equal_the_full_passs(gpt, pieces):
    tokens = torch.randint(31, (2, 8), generator=torch.Generator().manual_seed(1))
    full, caches, end = gpt(tokens), new_caches(gpt, batch=2, length=8), 0
    for piece in tokens.split(pieces, dim=1):
        end += piece.size(1)
        logits = cached_logits(gpt, piece, caches)
        torch.testing.assert_close(logits, full[:, end - 1], atol=1e-9, rtol=1e-9)
    assert caches[0].used == 8


def their_gpt2(gpt):
    """transformers' GPT-2 with the weights of ``gpt``; its Conv1D keeps them transposed."""
    c = gpt.config
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=c.vocabulary,
            n_positions=c.max_length,
            n_embd=c.d_model,
            n_layer=c.layers,
            n_head=c.heads,
            n_inner=c.d_hidden,
        )
    )
    theirs = theirs.double().eval()
    with torch.no_grad():
        theirs.transformer.wte.weight.copy_(gpt.word.weight)
        theirs.transformer.wpe.weight.copy_(gpt.position.weight)
        theirs.transformer.ln_f.load_state_dict(gpt.norm.state_dict())
        for a, b in zip(gpt.layers, theirs.transformer.h, strict=True):
            qkv = (a.attention.query, a.attention.key, a.attention.value)
            b.attn.c_attn.weight.copy_(torch.cat([x.weight for x in qkv]).T)
            b.attn.c_attn.bias.copy_(torch.cat([x.bias for x in qkv]))
            for ours, other in (
                (a.attention.output, b.attn.c_proj),
                (a.feed_forward[0], b.mlp.c_fc),
                (a.feed_forward[2], b.mlp.c_proj),
            ):
                other.weight.copy_(ours.weight.T)
                other.bias.copy_(ours.bias)
            b.ln_1.load_state_dict(a.attention_residual.norm.state_dict())
            b.ln_2.load_state_dict(a.feed_forward_residual.norm.state_dict())
    return theirs


def test_every_cached_step_equals_gpt2s_with_its_own_cache(gpt):
    theirs, past = their_gpt2(gpt), None
    tokens = torch.randint(31, (2, 10), generator=torch.Generator().manual_seed(2))
    caches = new_caches(gpt, batch=2, length=10)
    with torch.no_grad():
        for piece in tokens.split([4, 1, 1, 1, 1, 1, 1], dim=1):
            result = theirs(piece, past_key_values=past, use_cache=True)
            past = result.past_key_values
            logits = cached_logits(gpt, piece, caches)
            torch.testing.assert_close(logits, result.logits[:, -1], atol=1e-9, rtol=1e-9)


def test_generation_writes_what_gpt2_writes_and_what_full_passes_write(gpt):
    prompt = torch.tensor([[3, 1, 4], [1, 5, 9]])
    written = generate(gpt, prompt, steps=9)
    tokens = prompt
    for _ in range(9):
        tokens = torch.cat([tokens, gpt(tokens)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(written, tokens)
    theirs = their_gpt2(gpt).generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=9,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert torch.equal(written, theirs)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (4, 1), (6, 3)])
def test_grouped_queries_equal_llamas_without_rotation(heads, groups):
    d_model, length = 8 * heads, 5
    ours = randomise(GroupedQueryAttention(d_model, heads, groups).double())
    theirs = LlamaAttention(
        LlamaConfig(
            hidden_size=d_model,
            num_attention_heads=heads,
            num_key_value_heads=groups,
            attention_bias=True,
            attn_implementation="sdpa",
        ),
        layer_idx=0,
    ).double()
    pairs = list(
        zip(
            (ours.query, ours.key, ours.value, ours.output),
            (theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.o_proj),
            strict=True,
        )
    )
    for a, b in pairs:
        b.load_state_dict(a.state_dict())
    x = draw(2, length, d_model)
    still = torch.ones(1, length, 8, dtype=torch.float64), torch.zeros(1, length, 8, dtype=torch.float64)
    mask = causal_mask(length)
    expected = theirs(x, position_embeddings=still, attention_mask=mask.expand(2, 1, -1, -1))[0]
    got = ours(x, mask)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)
    (got**2).sum().backward()
    (expected**2).sum().backward()
    for a, b in pairs:
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_head_of_a_group_is_a_head_with_the_groups_keys(groups):
    shared = randomise(GroupedQueryAttention(16, 4, groups).double())
    plain = MultiHeadAttention(16, 4).double()
    plain.query.load_state_dict(shared.query.state_dict())
    plain.output.load_state_dict(shared.output.state_dict())
    for ours, theirs in ((plain.key, shared.key), (plain.value, shared.value)):
        copies = {
            name: weight.unflatten(0, (groups, 4)).repeat_interleave(4 // groups, 0).flatten(0, 1)
            for name, weight in theirs.state_dict().items()
        }
        ours.load_state_dict(copies)
    x = draw(2, 5, 16)
    mask = torch.rand(2, 4, 5, 5, generator=torch.Generator().manual_seed(3)) < 0.6
    mask |= torch.eye(5, dtype=torch.bool)
    for allowed in (None, mask, mask[:, :1], mask[0, 0]):
        got, expected = shared(x, allowed, weights=True), plain(x, mask=allowed, weights=True)
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-9)
        torch.testing.assert_close(shared(x, allowed), expected[0], atol=1e-12, rtol=1e-9)


def test_grouped_queries_step_by_step_equal_the_full_pass():
    layer, x = randomise(GroupedQueryAttention(16, 4, 2).double()), draw(2, 6, 16)
    full, cache, end = layer(x, causal_mask(6)), KVCache(2, 2, 6, 4, torch.float64), 0
    for piece in x.split([3, 1, 2], dim=1):
        end += piece.size(1)
        got = layer(piece, future_mask(piece.size(1), end), cache)
        torch.testing.assert_close(got, full[:, end - piece.size(1) : end], atol=1e-12, rtol=1e-9)


def test_cached_attention_equals_a_causal_pass():
    layer, x = randomise(MultiHeadAttention(16, 4).double()), draw(2, 6, 16)
    full, cache = layer(x, mask=causal_mask(6)), KVCache(2, 4, 6, 4, torch.float64)
    got = torch.cat([cached_attention(layer, piece, cache) for piece in x.split([1, 3, 2], dim=1)], dim=1)
    torch.testing.assert_close(got, full, atol=1e-12, rtol=1e-9)


def test_the_cache_hands_out_views_and_refuses_to_overflow():
    cache = KVCache(batch=1, heads=1, length=3, d=2)
    keys, _ = cache.append(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    assert keys.data_ptr() == cache.keys.data_ptr()
    with pytest.raises(ValueError, match="at most 3 positions in this cache, got 4"):
        cache.append(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    assert cache.used == 2


def test_sizes_that_do_not_divide_and_texts_that_are_too_long_are_refused(gpt):
    with pytest.raises(ValueError, match="heads=4, groups=3"):
        GroupedQueryAttention(16, 4, 3)
    with pytest.raises(ValueError, match="at most 16 tokens in all, got 17"):
        generate(gpt, torch.zeros(1, 7, dtype=torch.long), steps=10)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_writes_the_same(gpt):
    prompt = torch.tensor([[3, 1, 4]])
    expected = generate(gpt, prompt, steps=9)
    assert torch.equal(generate(gpt.cuda(), prompt.cuda(), steps=9).cpu(), expected)
