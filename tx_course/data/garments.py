"""Real photographs of garments, small and grey: an extract of Fashion-MNIST (Xiao et al. 2017)."""

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

CLASSES = (
    "T-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
"""The class of each label."""


@dataclass(frozen=True)
class Garments:
    """Images (n, 1, 28, 28), float32 from 0 (background) to 1, and their labels (n), int64, into ``CLASSES``.

    450 training and 50 test images of every class. The test images are of Fashion-MNIST's own test set.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_garments() -> Garments:
    """Return the garments, always the same and in the same order.

    >>> garments = load_garments()
    >>> garments.train_images.shape, garments.test_images.shape
    (torch.Size([4500, 1, 28, 28]), torch.Size([500, 1, 28, 28]))
    """
    with (files(__package__) / "garments.npz").open("rb") as file, np.load(file) as stored:
        train, test = (torch.from_numpy(stored[f"{part}_images"]) for part in ("train", "test"))
        return Garments(
            train_images=train[:, None] / 255,  # (n, 1, 28, 28)
            train_labels=torch.from_numpy(stored["train_labels"]).long(),
            test_images=test[:, None] / 255,
            test_labels=torch.from_numpy(stored["test_labels"]).long(),
        )
