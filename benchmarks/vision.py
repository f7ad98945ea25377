"""``VisionTransformer`` against transformers' ``ViTForImageClassification`` (sdpa), at three sizes.

Run ``python benchmarks/vision.py`` (``--write`` puts the table into benchmarks/README.md).
"""

import torch
from measure import machine, ratios, report, table, with_backward, without_gradients
from transformers import ViTConfig, ViTForImageClassification

from tx_course.vision import VisionTransformer, VitConfig

SIZES = {
    "the course's, 28², 64 images": (VitConfig.small(), 64),
    "half of ViT-S/16, 224², 4 images": (
        VitConfig(d_model=384, heads=6, layers=6, d_hidden=1536, dropout=0.0), 4,
    ),
    "a quarter of ViT-B/16, 224², 1 image": (VitConfig(layers=3, dropout=0.0), 1),
}  # fmt: skip
"""Configs and batch sizes; fewer layers change no ratio, as all layers are alike."""


def theirs(config):
    return ViTForImageClassification(
        ViTConfig(
            image_size=config.image_size,
            num_channels=config.channels,
            patch_size=config.patch,
            hidden_size=config.d_model,
            num_attention_heads=config.heads,
            num_hidden_layers=config.layers,
            intermediate_size=config.d_hidden,
            num_labels=config.classes,
            layer_norm_eps=config.eps,
            hidden_dropout_prob=config.dropout,
            attn_implementation="sdpa",
        )
    )


def peers(config, batch):
    """Return one run of each on the same images."""
    images = torch.randn(batch, config.channels, config.image_size, config.image_size)
    our_model, their_model = VisionTransformer(config), theirs(config)
    return {"ours": lambda: our_model(images), "theirs": lambda: their_model(images).logits}


def main():
    torch.manual_seed(0)
    rows = []
    for name, (config, batch) in SIZES.items():
        runs = peers(config, batch)
        forward = ratios({k: without_gradients(run) for k, run in runs.items()}, "ours")
        training = ratios({k: with_backward(run) for k, run in runs.items()}, "ours")
        rows.append([name, f"{forward['theirs']:.2f} / {training['theirs']:.2f}"])
    report(
        "vision",
        "### `VisionTransformer`\n\nTime of transformers' ViT (sdpa) ÷ ours, forward / forward with backward "
        f"({machine()}, float32); above 1 means that ours is faster:\n\n{table(['size', 'ratio'], rows)}",
    )


if __name__ == "__main__":
    main()
