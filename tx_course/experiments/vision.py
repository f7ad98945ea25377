"""Attention is all you need to see (level 6): how much data a ViT needs, what positions do, and a small DETR.

``python -m tx_course.experiments.vision`` prints every result over three seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.data.garments import CLASSES, load_garments
from tx_course.detection import Target, average_precision, corners, set_loss
from tx_course.detr import AnchoredDetr, Detr, DetrConfig, small_backbone
from tx_course.experiments import over_seeds
from tx_course.experiments.crowds import KINDS, draw_crowds
from tx_course.train import cosine, fit, sampler
from tx_course.vision import VisionTransformer, VitConfig, patchify, unpatchify

SIZES = (100, 500, 4500)
"""Numbers of training images to compare."""


def small_cnn(classes: int = 10) -> nn.Sequential:
    """Build four convolutions and a mean over places, of about as many parameters as ``VitConfig.small``.

    >>> small_cnn()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    layers: list[nn.Module] = []
    for d_in, d_out, stride in ((1, 24, 1), (24, 48, 2), (48, 64, 2), (64, 64, 1)):
        layers += [nn.Conv2d(d_in, d_out, 3, stride, 1, bias=False), nn.BatchNorm2d(d_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def vit_without_positions() -> VisionTransformer:
    """Build a ViT that is never told where a patch was."""
    model = VisionTransformer(VitConfig.small())
    model.positions.requires_grad_(False).zero_()
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "ViT": lambda: VisionTransformer(VitConfig.small()),
    "ViT without positions": vit_without_positions,
    "CNN": small_cnn,
}


@dataclass(frozen=True)
class Sorted:
    """The share of 500 test garments named right: as they are, and with their patches ``shuffled``."""

    accuracy: float
    shuffled: float
    model: nn.Module


def sort_garments(model: str, images: int = 4500, steps: int = 600, seed: int = 0) -> Sorted:
    """Train one of ``MODELS`` on the first ``images`` training garments, as many of each class."""
    garments = load_garments()
    chosen = torch.cat(
        [(garments.train_labels == label).nonzero()[: images // len(CLASSES), 0] for label in range(10)]
    )
    torch.manual_seed(seed)
    built = MODELS[model]()
    draw = sampler(garments.train_images[chosen], garments.train_labels[chosen], size=64)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    fit(built, draw, loss, steps, learning_rate=2e-3, schedule=cosine(0.1), weight_decay=0.05, seed=seed)
    right = [
        (classify(built, test) == garments.test_labels).float().mean().item()
        for test in (garments.test_images, shuffle_patches(garments.test_images))
    ]
    return Sorted(*right, built)


@torch.no_grad()
def classify(model: nn.Module, images: Tensor) -> Tensor:
    """Return the likeliest label (b) of ``images`` (b, 1, 28, 28)."""
    return model(images).argmax(-1)


def shuffle_patches(images: Tensor, size: int = 4, seed: int = 0) -> Tensor:
    """Put the patches of ``images`` (b, c, rows, columns) in another order, the same for every image.

    >>> shuffle_patches(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 1, 8, 8])
    """
    patches = patchify(images, size)
    order = torch.randperm(patches.size(1), generator=torch.Generator().manual_seed(seed))
    return unpatchify(patches[:, order], size, *images.shape[-2:])


def position_similarity(model: VisionTransformer) -> Tensor:
    """Return the cosine of every two patches' position embeddings, (n, n), from −1 to 1."""
    positions = F.normalize(model.positions[1:].detach(), dim=-1)
    return positions @ positions.T


@dataclass(frozen=True)
class Detection:
    """A trained detector, and its average precision at IoU 0.5 and 0.75 on 300 pictures it never saw."""

    ap50: float
    ap75: float
    images: Tensor
    targets: list[Target]
    model: Detr


def detect_garments(steps: int = 800, pretraining: int = 200, seed: int = 0) -> Detection:
    """Train a small DETR on pictures of one to four garments, never the same picture twice.

    Where the paper starts from a backbone trained on ImageNet, this one first learns for ``pretraining``
    steps to name the garment at each cell.
    """
    torch.manual_seed(seed)
    backbone = small_backbone()
    pretrain(backbone, pretraining, seed)
    model = AnchoredDetr(DetrConfig.small(len(KINDS)), backbone)

    def loss(model: nn.Module, batch: tuple[Tensor, list[Target]]) -> Tensor:
        images, targets = batch
        return set_loss(*model(images), targets).total

    fit(
        model,
        lambda generator: draw_crowds(32, generator),
        loss,
        steps,
        learning_rate=2e-3,
        schedule=cosine(0.1),
        clip=1.0,
        weight_decay=1e-4,
        seed=seed,
    )
    images, targets = draw_crowds(300, torch.Generator().manual_seed(10**6), test=True)
    with torch.no_grad():
        logits, boxes = model(images)
    precision = [average_precision(logits, boxes, targets, threshold) for threshold in (0.5, 0.75)]
    return Detection(*precision, images, targets, model)


def pretrain(backbone: nn.Module, steps: int, seed: int) -> None:
    """Teach ``backbone``, in place, to name the garment at each cell of its map, or to say that none is."""
    model = nn.Sequential(backbone, nn.Conv2d(64, len(KINDS) + 1, 1))

    def loss(model: nn.Module, batch: tuple[Tensor, list[Target]]) -> Tensor:
        images, targets = batch
        logits = model(images)
        return F.cross_entropy(logits, cell_labels(targets, logits.size(-1)))

    fit(
        model,
        lambda generator: draw_crowds(32, generator),
        loss,
        steps,
        learning_rate=3e-3,
        schedule=cosine(),
        seed=seed,
    )


def cell_labels(targets: list[Target], cells: int) -> Tensor:
    """Return the label at the middle of each cell (b, cells, cells), the last one for "nothing here"."""
    middle = (torch.arange(cells) + 0.5) / cells
    labels = torch.full((len(targets), cells, cells), len(KINDS))
    for image, (label, boxes) in zip(labels, targets, strict=True):
        for kind, (left, top, right, bottom) in zip(label, corners(boxes), strict=True):
            down = (top < middle) & (middle < bottom)
            across = (left < middle) & (middle < right)
            image[down[:, None] & across] = kind
    return labels


def main() -> None:
    """Print each result over three seeds."""
    for name in MODELS:
        for count in SIZES:
            over_seeds(
                f"garments, {name}, {count} images",
                lambda seed, name=name, count=count: _accuracies(sort_garments(name, count, seed=seed)),
            )
    over_seeds("detection", lambda seed: _precisions(detect_garments(seed=seed)))


def _accuracies(result: Sorted) -> dict[str, float]:
    return {"right": result.accuracy, "right when shuffled": result.shuffled}


def _precisions(result: Detection) -> dict[str, float]:
    return {"AP50": result.ap50, "AP75": result.ap75}


if __name__ == "__main__":
    main()
