"""Level 6: the Vision Transformer against transformers', and what patches and positions promise."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import ViTConfig, ViTForImageClassification

from tx_course.vision import VisionTransformer, VitConfig, patchify, unpatchify

CONFIG = VitConfig(
    image_size=12, channels=3, classes=7, patch=4, d_model=16, heads=4, layers=3, d_hidden=24, dropout=0.0
)


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawn(module):
    """The module in float64 with every parameter random."""
    module = module.double().eval()
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=100 + seed) * 0.3)
    return module


def parameter_pairs(ours, theirs):
    """Each parameter of ours and its counterpart in transformers, ours first."""
    yield ours.cls, theirs.vit.embeddings.cls_token
    yield ours.positions, theirs.vit.embeddings.position_embeddings
    projection = theirs.vit.embeddings.patch_embeddings.projection
    modules = [
        (ours.patch_embedding, projection),
        (ours.norm, theirs.vit.layernorm),
        (ours.output, theirs.classifier),
    ]
    for a, b in zip(ours.layers, theirs.vit.layers, strict=True):
        modules += [
            (a.attention.query, b.attention.q_proj),
            (a.attention.key, b.attention.k_proj),
            (a.attention.value, b.attention.v_proj),
            (a.attention.output, b.attention.o_proj),
            (a.attention_residual.norm, b.layernorm_before),
            (a.feed_forward_residual.norm, b.layernorm_after),
            (a.feed_forward[0], b.mlp.fc1),
            (a.feed_forward[2], b.mlp.fc2),
        ]
    for a, b in modules:
        yield a.weight, b.weight
        yield a.bias, b.bias


@pytest.mark.parametrize("eps", [1e-12, 1e-6])
def test_vit_equals_transformers_in_logits_features_and_gradients(eps):
    ours = drawn(VisionTransformer(VitConfig(**{**vars(CONFIG), "eps": eps})))
    theirs = ViTForImageClassification(
        ViTConfig(
            image_size=12, num_channels=3, patch_size=4, hidden_size=16, num_attention_heads=4,
            num_hidden_layers=3, intermediate_size=24, num_labels=7, layer_norm_eps=eps,
        )
    ).double().eval()  # fmt: skip
    pairs = list(parameter_pairs(ours, theirs))
    assert len(pairs) == len(list(ours.parameters())) == len(list(theirs.parameters()))
    with torch.no_grad():
        for a, b in pairs:
            b.copy_(a.view_as(b))
    x, y = draw(2, 3, 12, 12).requires_grad_(), draw(2, 3, 12, 12).requires_grad_()
    logits, expected = ours(x), theirs(y, output_hidden_states=True)
    torch.testing.assert_close(logits, expected.logits, atol=1e-9, rtol=1e-9)
    their_features = theirs.vit(y).last_hidden_state
    torch.testing.assert_close(ours.features(x), their_features, atol=1e-9, rtol=1e-9)
    upstream = draw(2, 7, seed=1)
    gradients = torch.autograd.grad(logits, [x, *(a for a, _ in pairs)], upstream)
    their_gradients = torch.autograd.grad(expected.logits, [y, *(b for _, b in pairs)], upstream)
    for a, b in zip(gradients, their_gradients, strict=True):
        torch.testing.assert_close(a, b.view_as(a), atol=1e-9, rtol=1e-9)


def test_the_default_sizes_are_the_papers():
    with torch.device("meta"):
        model = VisionTransformer(VitConfig())
    assert sum(p.numel() for p in model.parameters()) == 86_567_656  # "86M" in table 1


@given(*[st.integers(1, 3)] * 4, st.integers(1, 4))
def test_unpatchify_undoes_patchify(batch, channels, down, across, size):
    images = draw(batch, channels, down * size, across * size)
    patches = patchify(images, size)
    assert patches.shape == (batch, down * across, channels * size * size)
    assert torch.equal(unpatchify(patches, size, down * size, across * size), images)


def test_patchify_and_a_linear_layer_are_a_strided_convolution():
    images, weight, bias = draw(2, 3, 8, 12), draw(5, 3, 4, 4, seed=1), draw(5, seed=2)
    by_patches = F.linear(patchify(images, 4), weight.flatten(1), bias)  # (b, n, m)
    expected = F.conv2d(images, weight, bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(by_patches, expected, atol=1e-12, rtol=1e-12)


def test_without_positions_shuffled_patches_change_nothing_and_with_them_they_do():
    model, images = drawn(VisionTransformer(CONFIG)), draw(2, 3, 12, 12)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    shuffled = unpatchify(patchify(images, 4)[:, order], 4, 12, 12)
    assert (model(shuffled) - model(images)).abs().max() > 1e-3
    with torch.no_grad():
        model.positions.zero_()
    torch.testing.assert_close(model(shuffled), model(images), atol=1e-12, rtol=1e-12)
    features = model.features(images)[:, 1:]
    torch.testing.assert_close(model.features(shuffled)[:, 1:], features[:, order], atol=1e-12, rtol=1e-12)


def test_one_pixel_reaches_every_patch_in_one_layer():
    model = drawn(VisionTransformer(VitConfig(**{**vars(CONFIG), "layers": 1})))
    images = draw(1, 3, 12, 12)
    changed = images.clone()
    changed[0, 0, 0, 0] += 1
    assert (model.features(changed) - model.features(images)).abs().amax(2).min() > 1e-6


def test_bad_sizes_say_what_was_expected_and_what_came():
    with pytest.raises(ValueError, match="divisible by the patch size 4, got 6 by 8"):
        patchify(draw(1, 1, 6, 8), 4)
    with pytest.raises(ValueError, match="2 by 2 patches that fill 4 by 6 pixels, got 5"):
        unpatchify(draw(1, 5, 4), 2, 4, 6)
    with pytest.raises(ValueError, match="2 by 2 patches that fill 3 by 4 pixels, got 3"):
        unpatchify(draw(1, 3, 4), 2, 3, 4)
    with pytest.raises(ValueError, match="divisible by the patch, got 224 and 15"):
        VisionTransformer(VitConfig(patch=15))


def test_state_dict_round_trip_gives_the_same_numbers():
    model, twin = drawn(VisionTransformer(CONFIG)), VisionTransformer(CONFIG).double().eval()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(draw(1, 3, 12, 12)), model(draw(1, 3, 12, 12)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_numbers():
    images = draw(2, 3, 12, 12)
    on_gpu = drawn(VisionTransformer(CONFIG)).cuda()(images.cuda()).cpu()
    torch.testing.assert_close(on_gpu, drawn(VisionTransformer(CONFIG))(images), atol=1e-9, rtol=1e-9)
