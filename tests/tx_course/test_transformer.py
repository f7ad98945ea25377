"""The Transformer: equal to PyTorch's, layer by layer and whole; positions that are rotations."""

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tx_course.parity import assert_same, draw, gpu, packed, randomise, renamed
from tx_course.multi_head import causal_mask
from tx_course.transformer import (
    DecoderLayer,
    EncoderLayer,
    PostNorm,
    PreNorm,
    Transformer,
    TransformerConfig,
    position_rotation,
    sinusoidal_positions,
)

M, H, HIDDEN = 12, 3, 20
NORMS = pytest.mark.parametrize("residual", [PostNorm, PreNorm])
SMALL = TransformerConfig(11, 13, M, H, 2, HIDDEN, dropout=0.0)
SOURCE = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 0, 0]])
TARGET = torch.tensor([[1, 5, 6, 12], [1, 7, 0, 0]])

ENCODER_NAMES = [
    ("feed_forward.0", "linear1"),
    ("feed_forward.2", "linear2"),
    ("feed_forward_residual.norm", "norm2"),
    ("attention_residual.norm", "norm1"),
]
DECODER_NAMES = [
    ("feed_forward.0", "linear1"),
    ("feed_forward.2", "linear2"),
    ("feed_forward_residual.norm", "norm3"),
    ("cross_attention_residual.norm", "norm2"),
    ("attention_residual.norm", "norm1"),
]


def encoder_names(weights):
    return renamed(packed(weights, [("attention.", "self_attn.")]), ENCODER_NAMES)


def decoder_names(weights):
    attentions = [("attention.", "self_attn."), ("cross_attention.", "multihead_attn.")]
    return renamed(packed(weights, attentions), DECODER_NAMES)


def real(b, k):
    mask = torch.ones(b, k, dtype=torch.bool)
    mask[1:, -2:] = False
    return mask


def their_layer(kind, residual):
    return kind(M, H, HIDDEN, dropout=0.0, batch_first=True, norm_first=residual is PreNorm)


@NORMS
def test_the_encoder_layer_is_pytorchs(residual):
    assert_same(
        EncoderLayer(M, H, HIDDEN, residual=residual),
        their_layer(torch.nn.TransformerEncoderLayer, residual),
        encoder_names,
        lambda layer, x: layer(x, causal_mask(5) & real(2, 5)[:, None, None]),
        lambda layer, x: layer(x, src_mask=~causal_mask(5), src_key_padding_mask=~real(2, 5)),
        [draw(2, 5, M)],
    )


@NORMS
def test_the_decoder_layer_is_pytorchs(residual):
    assert_same(
        DecoderLayer(M, H, HIDDEN, residual=residual),
        their_layer(torch.nn.TransformerDecoderLayer, residual),
        decoder_names,
        lambda layer, x, memory: layer(x, memory, causal_mask(5), real(2, 7)[:, None, None]),
        lambda layer, x, memory: layer(
            x, memory, tgt_mask=~causal_mask(5), memory_key_padding_mask=~real(2, 7)
        ),
        [draw(2, 5, M), draw(2, 7, M, seed=1)],
    )


class Theirs(torch.nn.Module):
    """PyTorch's Transformer between embeddings, positions and logits written as the paper has them."""

    def __init__(self, config):
        super().__init__()
        pre = config.residual is PreNorm
        self.source_embedding = torch.nn.Embedding(config.source_vocabulary, config.d_model)
        self.target_embedding = torch.nn.Embedding(config.target_vocabulary, config.d_model)
        self.body = torch.nn.Transformer(
            M, H, config.layers, config.layers, HIDDEN, dropout=0.0, batch_first=True, norm_first=pre
        )
        if not pre:  # PyTorch adds a last norm even here; the paper's layers already end with one
            self.body.encoder.norm = self.body.decoder.norm = None

    def forward(self, source, target):
        hidden_target = ~causal_mask(target.size(1))
        out = self.body(
            self.embed(source, self.source_embedding),
            self.embed(target, self.target_embedding),
            tgt_mask=hidden_target,
            src_key_padding_mask=source == 0,
            tgt_key_padding_mask=target == 0,
            memory_key_padding_mask=source == 0,
        )
        return out @ self.target_embedding.weight.T

    @staticmethod
    def embed(tokens, embedding):
        position = np.zeros((tokens.size(1), M))
        for p in range(tokens.size(1)):
            for i in range(0, M, 2):
                position[p, i] = math.sin(p / 10000 ** (i / M))
                position[p, i + 1] = math.cos(p / 10000 ** (i / M))
        return embedding(tokens) * math.sqrt(M) + torch.from_numpy(position)


def whole_names(weights):
    result = {}
    for part, names in (("encoder", encoder_names), ("decoder", decoder_names)):
        for i in range(SMALL.layers):
            start = f"{part}.{i}."
            layer = {name.removeprefix(start): w for name, w in weights.items() if name.startswith(start)}
            result |= {f"body.{part}.layers.{i}.{name}": w for name, w in names(layer).items()}
    rest = {name: w for name, w in weights.items() if not name.startswith(("encoder.", "decoder."))}
    ends = [("encoder_norm", "body.encoder.norm"), ("decoder_norm", "body.decoder.norm")]
    return result | renamed(rest, ends)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@NORMS
def test_the_transformer_is_pytorchs(residual):
    config = replace(SMALL, residual=residual)
    assert_same(
        Transformer(config),
        Theirs(config),
        whole_names,
        lambda model: model(SOURCE, TARGET),
        lambda model: model(SOURCE, TARGET),
    )


@NORMS
def test_a_later_target_token_changes_nothing_before_it(residual):
    model = randomise(Transformer(replace(SMALL, residual=residual)))
    changed = TARGET.clone()
    changed[:, 2:] = 9
    before, after = model(SOURCE, TARGET), model(SOURCE, changed)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[0, 2:], after[0, 2:])


def test_longer_padding_changes_nothing():
    model = randomise(Transformer(SMALL))
    longer = torch.nn.functional.pad(SOURCE, (0, 4))
    torch.testing.assert_close(model(longer, TARGET), model(SOURCE, TARGET))


def test_padded_source_positions_get_a_gradient_of_exactly_zero():
    model = randomise(Transformer(SMALL))
    memory = model.encode(SOURCE).detach().requires_grad_()
    model.decode(TARGET, memory, (SOURCE != 0)[:, None, None]).square().sum().backward()
    assert (memory.grad[SOURCE == 0] == 0).all()
    assert (memory.grad[SOURCE != 0] != 0).all()


def test_word_order_matters_only_because_of_positions():
    model = randomise(Transformer(SMALL))
    forwards, backwards = model.encode(SOURCE[:1]), model.encode(SOURCE[:1].flip(1)).flip(1)
    assert not torch.allclose(forwards, backwards)
    layer, x = model.encoder[0], draw(1, 5, M)
    torch.testing.assert_close(layer(x.flip(1)).flip(1), layer(x))


@given(position=st.integers(0, 40), shift=st.integers(-20, 40), half=st.integers(1, 8))
def test_moving_a_position_is_a_rotation_that_does_not_depend_on_it(position, shift, half):
    rotation = position_rotation(shift, 2 * half)
    table = sinusoidal_positions(101, 2 * half)
    if position + shift >= 0:
        torch.testing.assert_close(rotation @ table[position], table[position + shift], atol=1e-12, rtol=0)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(2 * half).double(), atol=1e-12, rtol=0)


def test_the_first_five_hundred_positions_are_all_different():
    table = sinusoidal_positions(500, 16)
    distance = torch.cdist(table, table) + torch.eye(500).double()
    assert distance.min() > 0.1


def test_the_defaults_are_the_papers_base_model():
    config = TransformerConfig(37000, 37000)
    assert (config.layers, config.d_model, config.heads, config.d_hidden, config.dropout) == (
        6,
        512,
        8,
        2048,
        0.1,
    )
    with pytest.raises(FrozenInstanceError):
        config.layers = 2


def test_the_same_seed_builds_the_same_model_and_its_state_goes_round():
    def build(seed):
        torch.manual_seed(seed)
        return Transformer(TransformerConfig.small(11, 13)).eval()

    first, same, other = build(0), build(0), build(1)
    assert torch.equal(first(SOURCE, TARGET), same(SOURCE, TARGET))
    assert not torch.allclose(first(SOURCE, TARGET), other(SOURCE, TARGET))
    other.load_state_dict(first.state_dict())
    assert torch.equal(first(SOURCE, TARGET), other(SOURCE, TARGET))


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model = Transformer(replace(SMALL, dropout=0.5))
    assert not torch.allclose(model(SOURCE, TARGET), model(SOURCE, TARGET))
    model.eval()
    assert torch.equal(model(SOURCE, TARGET), model(SOURCE, TARGET))


def test_an_odd_number_of_features_has_no_sinusoids():
    with pytest.raises(ValueError, match="even d_model"):
        sinusoidal_positions(3, 5)


@gpu
@NORMS
def test_the_gpu_gives_the_same_numbers(residual):
    model = randomise(Transformer(replace(SMALL, residual=residual)))
    expected = model(SOURCE, TARGET)
    actual = model.cuda()(SOURCE.cuda(), TARGET.cuda())
    torch.testing.assert_close(actual.cpu(), expected, atol=1e-10, rtol=1e-10)
