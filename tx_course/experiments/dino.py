"""DINO on garments (level 8): with both brakes it learns to tell images apart; without one it collapses.

``python -m tx_course.experiments.dino`` prints the table over three seeds.
"""

import copy
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tx_course.data.garments import load_garments
from tx_course.dino import DinoHead, DinoLoss, ema_update, multi_crop, teacher_momentum
from tx_course.train import cosine
from tx_course.vision import VisionTransformer, VitConfig

OUTPUTS = 256
GLOBAL, LOCAL = (0.7, 1.0), (0.35, 0.6)  # shares of the image's side


@dataclass(frozen=True)
class Brakes:
    """What keeps DINO from collapsing: how the centre moves (1: never), and the teacher's temperature."""

    center_momentum: float = 0.9
    teacher_temperature: float = 0.04


BRAKES = {
    "both": Brakes(),
    "no centring": Brakes(center_momentum=1.0),
    "no sharpening": Brakes(teacher_temperature=0.1),  # the student's
}


@dataclass(frozen=True)
class Dino:
    """A trained teacher, and at each step, in nats, how spread out its answers are and what they tell.

    ``entropy`` is an image's, averaged: log 256 = 5.55 if all outputs are equal, 0 if one takes all.
    ``information`` is the entropy of the mean answer minus that: 0 if all images get the same answer.
    """

    teacher: nn.Module
    entropy: list[float]
    information: list[float]


def network(seed: int) -> nn.Module:
    """Return a small ViT that gives the features of [CLS], with a DINO head on top."""
    torch.manual_seed(seed)
    backbone = VisionTransformer(VitConfig.small())
    backbone.output = nn.Identity()
    return nn.Sequential(backbone, DinoHead(64, OUTPUTS, d_hidden=128, bottleneck=32))


def train_dino(
    images: Tensor,
    brakes: Brakes,
    steps: int = 80,
    seed: int = 0,
    size: int = 32,
    learning_rate: float = 1e-3,
) -> Dino:
    """Train on ``images`` (n, 1, height, width) without labels: two global and two local views of each.

    The teacher sees the global ones only. All views are 28 by 28 pixels.
    """
    student = network(seed)
    teacher = copy.deepcopy(student).requires_grad_(False)
    loss = DinoLoss(OUTPUTS, teacher_temperature=brakes.teacher_temperature, momentum=brakes.center_momentum)
    optimizer = torch.optim.AdamW(student.parameters(), learning_rate, weight_decay=0.04)
    schedule, generator = cosine(0.1), torch.Generator().manual_seed(seed)
    entropy, information = [], []
    for step in range(steps):
        done = (step + 0.5) / steps
        optimizer.param_groups[0]["lr"] = learning_rate * schedule(done)
        batch = images[torch.randint(len(images), (size,), generator=generator)]
        views = multi_crop(batch, 28, [GLOBAL, GLOBAL, LOCAL, LOCAL], generator)
        with torch.no_grad():
            taught = teacher(views[:2].flatten(0, 1)).unflatten(0, (2, size))
        value = loss(student(views.flatten(0, 1)).unflatten(0, (4, size)), taught)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        optimizer.step()
        ema_update(teacher, student, teacher_momentum(done, start=0.95))
        answers = loss.teach(taught).flatten(0, 1)  # (images, outputs)
        entropy.append(_entropy(answers).mean().item())
        information.append((_entropy(answers.mean(0)) - _entropy(answers).mean()).item())
    return Dino(teacher.eval(), entropy, information)


def _entropy(probability: Tensor) -> Tensor:
    return -torch.xlogy(probability, probability).sum(dim=-1)


def main() -> None:
    """Print how each training goes, over three seeds."""
    images = load_garments().train_images
    for name, brakes in BRAKES.items():
        for seed in range(3):
            start = time.perf_counter()
            dino = train_dino(images, brakes, seed=seed)
            entropy, information = (
                " ".join(f"{x[i]:.2f}" for i in (0, 10, 20, 40, -1)) for x in (dino.entropy, dino.information)
            )
            print(
                f"{name:14} seed {seed}  entropy {entropy}  information {information}  "
                f"{time.perf_counter() - start:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
