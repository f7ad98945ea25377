"""Weights that do not depend on content: MLPs over patches (level 9).

Axes: b batch, n patches, m features of the model. Attention asks which patches matter for this image; here
the mixing of patches is learned once and is the same for every image. It works well enough to be a lesson.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tx_course.transformer import PreNorm, feed_forward


@dataclass(frozen=True)
class MixerConfig:
    """Sizes of an MLP-Mixer: the paper's S/16 unless said otherwise (Tolstikhin et al. 2021, table 1).

    ``image_size`` and ``patch`` are sides in pixels; ``d_tokens`` and ``d_hidden`` are the widths of the MLP
    over patches and of the one over features.

    >>> MixerConfig().layers
    8
    """

    image_size: int = 224
    channels: int = 3
    classes: int = 1000
    patch: int = 16
    d_model: int = 512
    layers: int = 8
    d_tokens: int = 256
    d_hidden: int = 2048

    @classmethod
    def small(cls, classes: int = 10) -> "MixerConfig":
        """Return the course's size, for grey images of 28 by 28 pixels: 49 patches."""
        return cls(28, 1, classes, patch=4, d_model=64, layers=4, d_tokens=64, d_hidden=256)


@dataclass(frozen=True)
class PatchMlpConfig:
    """Sizes of a ViT without attention: ViT-base's unless said otherwise. Both its MLPs widen four times.

    >>> PatchMlpConfig().layers
    12
    """

    image_size: int = 224
    channels: int = 3
    classes: int = 1000
    patch: int = 16
    d_model: int = 768
    layers: int = 12

    @classmethod
    def small(cls, classes: int = 10) -> "PatchMlpConfig":
        """Return the course's size, for grey images of 28 by 28 pixels: 49 patches."""
        return cls(28, 1, classes, patch=4, d_model=64, layers=4)


class TokenMlp(nn.Module):
    """Mix the patches of each feature alone: an MLP over n, the features having been turned out of the way.

    >>> TokenMlp(patches=9, d_hidden=16)(torch.zeros(2, 9, 8)).shape
    torch.Size([2, 9, 8])
    """

    def __init__(self, patches: int, d_hidden: int):
        super().__init__()
        self.mlp = feed_forward(patches, d_hidden, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (b, n, m) with its patches mixed, same shape."""
        return self.mlp(x.transpose(1, 2)).transpose(1, 2)


class MixerBlock(nn.Module):
    """Mix patches, then features, each pre-norm with the norm over features (Tolstikhin et al. 2021, eq. 1).

    >>> MixerBlock(patches=9, d_model=8, d_tokens=16, d_hidden=32)(torch.zeros(2, 9, 8)).shape
    torch.Size([2, 9, 8])
    """

    def __init__(self, patches: int, d_model: int, d_tokens: int, d_hidden: int):
        super().__init__()
        self.tokens = TokenMlp(patches, d_tokens)
        self.features = feed_forward(d_model, d_hidden, nn.GELU())
        self.tokens_residual = PreNorm(d_model)
        self.features_residual = PreNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (b, n, m) after the block, same shape."""
        x = self.tokens_residual(x, self.tokens)
        return self.features_residual(x, self.features)


class PatchMlpBlock(nn.Module):
    """A ViT's block with attention replaced by an MLP over patches (Melas-Kyriazi 2021).

    Not the Mixer's block: features come first, the norm before the patches' MLP is over patches, and both
    MLPs widen four times.

    >>> PatchMlpBlock(patches=9, d_model=8)(torch.zeros(2, 9, 8)).shape
    torch.Size([2, 9, 8])
    """

    def __init__(self, patches: int, d_model: int):
        super().__init__()
        self.features = feed_forward(d_model, 4 * d_model, nn.GELU())
        self.tokens = feed_forward(patches, 4 * patches, nn.GELU())
        self.features_residual = PreNorm(d_model)
        self.tokens_residual = PreNorm(patches)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (b, n, m) after the block, same shape."""
        x = self.features_residual(x, self.features).transpose(1, 2)  # (b, m, n)
        return self.tokens_residual(x, self.tokens).transpose(1, 2)  # (b, n, m)


class MlpMixer(nn.Module):
    """Patches, mixer blocks, the mean over patches, a linear layer (Tolstikhin et al. 2021).

    It has no positions: each patch has its own weights in the MLP over patches.

    >>> MlpMixer(MixerConfig.small(classes=3))(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 3])
    """

    def __init__(self, config: MixerConfig):
        super().__init__()
        patches = (config.image_size // config.patch) ** 2
        self.patches = nn.Conv2d(config.channels, config.d_model, config.patch, config.patch)
        self.layers = nn.Sequential(
            *(
                MixerBlock(patches, config.d_model, config.d_tokens, config.d_hidden)
                for _ in range(config.layers)
            )
        )
        self.norm = nn.LayerNorm(config.d_model)
        self.output = nn.Linear(config.d_model, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (b, classes) of ``images`` (b, channels, image_size, image_size)."""
        x = self.patches(images).flatten(2).transpose(1, 2)  # (b, n, m)
        return self.output(self.norm(self.layers(x)).mean(dim=1))


class PatchMlp(nn.Module):
    """A ViT without attention: class token, positions, ``PatchMlpBlock`` (Melas-Kyriazi 2021).

    >>> PatchMlp(PatchMlpConfig.small(classes=3))(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 3])
    """

    def __init__(self, config: PatchMlpConfig):
        super().__init__()
        tokens = (config.image_size // config.patch) ** 2 + 1  # and the class token
        self.patches = nn.Conv2d(config.channels, config.d_model, config.patch, config.patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.d_model))
        self.position = nn.Parameter(torch.empty(1, tokens, config.d_model))
        self.layers = nn.Sequential(*(PatchMlpBlock(tokens, config.d_model) for _ in range(config.layers)))
        self.norm = nn.LayerNorm(config.d_model)
        self.output = nn.Linear(config.d_model, config.classes)
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (b, classes) of ``images`` (b, channels, image_size, image_size)."""
        x = self.patches(images).flatten(2).transpose(1, 2)  # (b, n, m)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1) + self.position
        return self.output(self.norm(self.layers(x))[:, 0])
