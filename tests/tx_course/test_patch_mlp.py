"""MLPs over patches: each block worked out by hand in NumPy, and weights that no content changes."""

import numpy as np
import pytest
import torch
from scipy.special import erf

from tx_course.patch_mlp import MixerBlock, MixerConfig, MlpMixer, PatchMlp, PatchMlpBlock, PatchMlpConfig


def norm(x, layer):
    """LayerNorm over the last axis."""
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * layer.weight.numpy() + layer.bias.numpy()


def mlp(x, layers):
    """Two linear maps with a Gaussian error unit between, over the last axis."""
    first, _, second = layers
    hidden = x @ first.weight.numpy().T + first.bias.numpy()
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    return hidden @ second.weight.numpy().T + second.bias.numpy()


def randomised(block):
    torch.manual_seed(0)
    for weight in block.double().parameters():
        weight.requires_grad_(False).normal_(std=0.5)
    return block


X = torch.randn(2, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_a_mixer_block_mixes_patches_then_features():
    block, x = randomised(MixerBlock(9, 8, d_tokens=5, d_hidden=12)), X.numpy()
    mixed = norm(x, block.tokens_residual.norm).transpose(0, 2, 1)
    x = x + mlp(mixed, block.tokens.mlp).transpose(0, 2, 1)
    x = x + mlp(norm(x, block.features_residual.norm), block.features)
    np.testing.assert_allclose(block(X).numpy(), x, atol=1e-12)


def test_a_patch_mlp_block_does_features_first_and_norms_over_patches():
    block, x = randomised(PatchMlpBlock(9, 8)), X.numpy()
    x = x + mlp(norm(x, block.features_residual.norm), block.features)
    turned = x.transpose(0, 2, 1)
    turned = turned + mlp(norm(turned, block.tokens_residual.norm), block.tokens)
    np.testing.assert_allclose(block(X).numpy(), turned.transpose(0, 2, 1), atol=1e-12)
    assert block.tokens[0].weight.shape == (36, 9)
    assert block.features[0].weight.shape == (32, 8)


@pytest.mark.parametrize("block", [MixerBlock(9, 8, 16, 32), PatchMlpBlock(9, 8)], ids=["mixer", "patch MLP"])
def test_patches_in_another_order_give_another_answer(block):
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    block = randomised(block)
    assert not torch.allclose(block(X)[:, order], block(X[:, order]))


@pytest.mark.parametrize(
    ("model", "config"), [(MlpMixer, MixerConfig), (PatchMlp, PatchMlpConfig)], ids=["mixer", "patch MLP"]
)
def test_every_pixel_reaches_the_logits_and_every_parameter_learns(model, config):
    torch.manual_seed(3)
    images = torch.randn(2, 1, 28, 28, requires_grad=True)
    model = model(config.small(classes=3))
    model(images).square().sum().backward()
    assert images.grad.abs().gt(0).all()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_papers_sizes_have_the_papers_parameters():
    with torch.device("meta"):
        mixer, patch_mlp = MlpMixer(MixerConfig()), PatchMlp(PatchMlpConfig())
    assert round(sum(p.numel() for p in mixer.parameters()) / 1e6, 1) == 18.5  # the paper says 18 million
    assert round(sum(p.numel() for p in patch_mlp.parameters()) / 1e6) == 62  # the paper says 62 million


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_logits():
    model, images = PatchMlp(PatchMlpConfig.small()).double(), torch.randn(2, 1, 28, 28, dtype=torch.float64)
    expected = model(images)
    torch.testing.assert_close(model.cuda()(images.cuda()).cpu(), expected, atol=1e-9, rtol=1e-9)
