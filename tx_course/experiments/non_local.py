"""Attention beyond the local (level 5): who can hear a garment at the other end of the picture?

``python -m tx_course.experiments.non_local`` prints every result over three seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.experiments import over_seeds
from tx_course.experiments.scenes import COLOURS, KINDS, Scenes, two_far_apart, two_pairs
from tx_course.non_local import ChannelAttention, DotProduct, NonLocalBlock, PositionAttention
from tx_course.train import cosine, fit

CHANNELS = 32
Draw = Callable[..., Scenes]
TASKS: dict[str, tuple[Draw, int, int]] = {
    "two garments": (two_far_apart, 1, len(KINDS)),
    "two pairs": (two_pairs, 3, len(COLOURS)),
}
"""Each task's pictures, the channels of a picture and the number of answers."""


class GlobalMean(nn.Module):
    """Tell every place the same: what a small MLP makes of the mean over all places."""

    def __init__(self, channels: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (b, c, rows, columns) with it added."""
        return x + self.mlp(x.mean(dim=(2, 3)))[..., None, None]


class Alone(GlobalMean):
    """Tell every place only what the same MLP makes of itself."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (b, c, rows, columns) with it added."""
        return x + self.mlp(x.movedim(1, -1)).movedim(-1, 1)


class DualAttention(nn.Module):
    """DANet's two attentions side by side, added."""

    def __init__(self, channels: int):
        super().__init__()
        self.position = PositionAttention(channels, channels // 2)
        self.channel = ChannelAttention()

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum (b, c, rows, columns) of both."""
        return self.position(x) + self.channel(x)


def convolution(d_in: int, d_out: int, stride: int = 1) -> nn.Sequential:
    """Build a 3 by 3 convolution with its norm and ReLU."""
    return nn.Sequential(nn.Conv2d(d_in, d_out, 3, stride, 1, bias=False), nn.BatchNorm2d(d_out), nn.ReLU())


class Deeper(nn.Module):
    """Look a step further: a depthwise 3 by 3 convolution and a mixing of channels, added."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (b, c, rows, columns) with it added."""
        return x + self.layers(x)


def _last_layers(context: nn.Module) -> list[nn.Module]:
    return [convolution(CHANNELS, CHANNELS), convolution(CHANNELS, CHANNELS), context]


CONTEXTS: dict[str, Callable[[], list[nn.Module]]] = {
    "nothing": lambda: _last_layers(Alone(CHANNELS)),
    "deeper CNN": lambda: [Deeper(CHANNELS) for _ in range(14)],
    "global mean": lambda: _last_layers(GlobalMean(CHANNELS)),
    "dot product": lambda: _last_layers(NonLocalBlock(CHANNELS, DotProduct)),
    "DANet": lambda: _last_layers(DualAttention(CHANNELS)),
    "embedded Gaussian": lambda: _last_layers(NonLocalBlock(CHANNELS)),
}
"""Six ways to use about 20,700 parameters between the first two convolutions and the answer."""


def network(context: str, channels: int, answers: int) -> nn.Sequential:
    """Build a network that answers at each cell: two convolutions, one of ``CONTEXTS``, and a readout.

    Without a context its answer depends on 23 by 23 pixels.
    """
    return nn.Sequential(
        convolution(channels, 16, stride=2),
        convolution(16, CHANNELS, stride=2),
        *CONTEXTS[context](),
        nn.Conv2d(CHANNELS, 64, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, answers, 1),
    )


@dataclass(frozen=True)
class Lookup:
    """How often a network's garments answer right, out of 1, on ``scenes`` of garments it never saw."""

    accuracy: float
    parameters: int
    scenes: Scenes
    model: nn.Sequential


def look_up(task: str, context: str, steps: int = 600, seed: int = 0) -> Lookup:
    """Train a network with one of ``CONTEXTS`` at one of ``TASKS``, and test it on 1,000 pictures."""
    draw, channels, answers = TASKS[task]
    torch.manual_seed(seed)
    model = network(context, channels, answers)

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        scenes = draw(32, generator)
        return scenes.images, scenes.answer

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    fit(model, batch, loss, steps, learning_rate=3e-3, schedule=cosine(0.03), weight_decay=1e-3, seed=seed)
    scenes = draw(1000, torch.Generator().manual_seed(10**6), test=True)
    parameters = sum(p.numel() for p in model.parameters())
    return Lookup(score(model, scenes), parameters, scenes, model)


@torch.no_grad()
def score(model: nn.Module, scenes: Scenes) -> float:
    """Return the share of garments whose cells, their logits added up, give the right answer."""
    logits = model(scenes.images)  # (b, answers, 12, 12)
    inside = F.one_hot(scenes.garment + 1)[..., 1:].to(logits)  # (b, 12, 12, m)
    by_garment = torch.einsum("baij,bijm->bma", logits, inside)
    return (by_garment.argmax(-1) == scenes.answers).float().mean().item()


def main() -> None:
    """Print each result over three seeds."""
    for task in TASKS:
        for context in CONTEXTS:
            over_seeds(
                f"{task}, {context}",
                lambda seed, task=task, context=context: {
                    "right": look_up(task, context, seed=seed).accuracy
                },
            )


if __name__ == "__main__":
    main()
