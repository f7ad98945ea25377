"""One family (level 9): what each change of the sentence costs and what it buys.

The same frame around four ways to mix patches, and Swin; time and memory against length; tokens a second with
and without a cache; the noise of hard attention's gradients.
``python -m tx_course.experiments.variants`` prints them all.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.attention import attend
from tx_course.bert import Gpt, GptConfig
from tx_course.data.garments import Garments, load_garments
from tx_course.decoding import generate
from tx_course.hard import gumbel_softmax, sample_key, score_function_loss, straight_through
from tx_course.linear import linear_attention
from tx_course.local import local_attention
from tx_course.measure import peak_bytes, seconds
from tx_course.multi_head import MultiHeadAttention, merge_heads, split_heads
from tx_course.online_softmax import online_softmax_attention
from tx_course.patch_mlp import TokenMlp
from tx_course.swin import Swin, SwinConfig
from tx_course.train import cosine, fit, sampler
from tx_course.vision import VisionTransformer, VitConfig

CONFIG = VitConfig.small()
SWIN = SwinConfig(28, 1, 10, patch=2, d_model=24, depths=(2, 2), heads=(2, 4))  # as many parameters


class LinearMultiHead(MultiHeadAttention):
    """``MultiHeadAttention`` with linear attention in the place of softmax."""

    def forward(self, query: Tensor, mask: None = None) -> Tensor:
        """Return what each position of ``query`` (b, q, m) hears of all the others, same shape."""
        projected = (split_heads(f(query), self.heads) for f in (self.query, self.key, self.value))
        return self.output(merge_heads(linear_attention(*projected)))


class PatchMixing(nn.Module):
    """``TokenMlp`` where an attention would be."""

    def __init__(self):
        super().__init__()
        self.mlp = TokenMlp(1 + CONFIG.patches, d_hidden=160)

    def forward(self, x: Tensor, mask: None = None) -> Tensor:
        """Return ``x`` (b, t, m) with its tokens mixed, whatever they hold."""
        return self.mlp(x)


class NoMixing(nn.Module):
    """Nothing where an attention would be: each patch is on its own until the mean at the end."""

    def forward(self, x: Tensor, mask: None = None) -> Tensor:
        """Return zeros like ``x``."""
        return torch.zeros_like(x)


MIXERS: dict[str, Callable[[], nn.Module]] = {
    "softmax attention": lambda: MultiHeadAttention(CONFIG.d_model, CONFIG.heads),
    "linear attention": lambda: LinearMultiHead(CONFIG.d_model, CONFIG.heads),
    "MLP over patches": PatchMixing,
    "no mixing": NoMixing,
}


class MeanVit(VisionTransformer):
    """A ViT whose attentions are replaced by a ``mixer``, and which reads the mean of its tokens, not [CLS].

    So that patches count even where nothing mixes them.
    """

    def __init__(self, mixer: Callable[[], nn.Module]):
        super().__init__(CONFIG)
        for layer in self.layers:
            layer.attention = mixer()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (b, classes) of ``images`` (b, 1, 28, 28)."""
        return self.output(self.features(images).mean(dim=1))


@dataclass(frozen=True)
class Trained:
    """A trained model, how often it is right on test images, and what that took."""

    model: nn.Module
    accuracy: float
    seconds: float
    parameters: int


def build(name: str) -> nn.Module:
    """Return an untrained model by name: one of ``MIXERS``, or "Swin"."""
    return Swin(SWIN) if name == "Swin" else MeanVit(MIXERS[name])


def train_on_garments(
    name: str, seed: int = 0, steps: int = 300, garments: Garments | None = None
) -> Trained:
    """Train ``build(name)`` for ``steps`` batches of 32 garments, the same for every model."""
    garments = garments or load_garments()
    torch.manual_seed(seed)
    model = build(name)
    draw = sampler(garments.train_images, garments.train_labels, size=32)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    start = time.perf_counter()
    fit(model, draw, loss, steps, learning_rate=2e-3, schedule=cosine(0.1), weight_decay=0.05, seed=seed)
    took = time.perf_counter() - start
    with torch.no_grad():
        right = (model(garments.test_images).argmax(-1) == garments.test_labels).float().mean().item()
    return Trained(model, right, took, sum(p.numel() for p in model.parameters()))


ATTENTIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "weights written out": lambda q, k, v: attend(q, k, v, weights=True)[0],
    "online softmax": online_softmax_attention,
    "fused kernel": attend,
    "local, reach 64": lambda q, k, v: local_attention(q, k, v, reach=64),
    "linear attention": linear_attention,
}
"""Ways to attend from one sequence to itself. The first three give the same numbers."""


def exponent(lengths: tuple[int, ...], measured: list[float]) -> float:
    """Fit measured = c · length^p and return p.

    >>> round(exponent((1, 2, 4), [3.0, 12.0, 48.0]), 6)
    2.0
    """
    return float(np.polyfit(np.log(lengths), np.log(measured), 1)[0])


@dataclass(frozen=True)
class Cost:
    """Seconds and bytes of a training step at each length, and exponents over the last three lengths."""

    lengths: tuple[int, ...]
    seconds: list[float]
    bytes: list[float]

    @property
    def exponents(self) -> tuple[float, float]:
        """The fitted exponents of seconds and of bytes."""
        last = self.lengths[-3:]
        return exponent(last, self.seconds[-3:]), exponent(last, self.bytes[-3:])


def cost_against_length(lengths: tuple[int, ...] = (256, 512, 1024, 2048)) -> dict[str, Cost]:
    """Measure forward and backward of every way to attend: batch 1, 4 heads, 64 features a head."""
    costs = {}
    for name, attention in ATTENTIONS.items():
        times, sizes = [], []
        for length in lengths:
            inputs = [torch.randn(1, 4, length, 64, requires_grad=True) for _ in range(3)]

            def step(attention=attention, inputs=inputs):
                attention(*inputs).sum().backward()

            times.append(seconds(step))
            sizes.append(float(peak_bytes(step)))
        costs[name] = Cost(lengths, times, sizes)
    return costs


@torch.no_grad()
def generate_without_cache(gpt: Gpt, tokens: Tensor, steps: int) -> Tensor:
    """Do what ``generate`` does, running the whole text through the model for every new token."""
    for _ in range(steps):
        logits = F.linear(gpt.features(tokens)[:, -1], gpt.word.weight)
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
    return tokens


def tokens_a_second(steps: int = 256, seed: int = 0) -> dict[str, float]:
    """Measure how fast a GPT of 4 layers writes ``steps`` tokens, with and without a cache."""
    torch.manual_seed(seed)
    config = GptConfig(vocabulary=1000, d_model=128, heads=4, layers=4, d_hidden=512, max_length=steps + 1)
    gpt, prompt = Gpt(config).eval(), torch.zeros(1, 1, dtype=torch.long)
    ways = {"with a cache": generate, "without": generate_without_cache}
    return {
        name: steps / seconds(lambda way=way: way(gpt, prompt, steps), repeats=2)
        for name, way in ways.items()
    }


@dataclass(frozen=True)
class Estimator:
    """How far a gradient estimator is off, in lengths of the true gradient: on average, and by chance."""

    bias: float
    deviation: float


def gradient_noise(draws: int = 20_000, keys: int = 5, seed: int = 0) -> dict[str, Estimator]:
    """Compare estimators of the gradient of hard attention's mean cost with the exact one.

    One query hears one of ``keys`` values in the plane; the cost is its squared distance to a target. The
    gradient is with respect to the scores.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(keys, generator=generator, dtype=torch.float64)
    value, target = torch.randn(keys, 2, generator=generator, dtype=torch.float64), torch.ones(2).double()

    def cost(heard: Tensor) -> Tensor:
        return (heard - target).square().sum(dim=-1)

    def sampled(baseline: float) -> Callable[[Tensor], Tensor]:
        def loss(scores: Tensor) -> Tensor:
            weights = scores.softmax(-1)
            index = sample_key(weights, generator)
            log_probability = weights.gather(-1, index[:, None])[:, 0].log()
            return score_function_loss(cost(value[index]), log_probability, baseline)

        return loss

    mean_cost = (scores.softmax(-1) * cost(value)).sum().item()
    losses = {
        "score function": sampled(0.0),
        "score function, mean cost as baseline": sampled(mean_cost),
        "straight-through": lambda s: cost(straight_through(s.softmax(-1), generator) @ value),
        "Gumbel, temperature 1": lambda s: cost(gumbel_softmax(s, 1.0, generator) @ value),
        "Gumbel, temperature 0.1": lambda s: cost(gumbel_softmax(s, 0.1, generator) @ value),
    }
    exact = _gradient(lambda s: (s.softmax(-1) * cost(value)).sum(-1), scores[None])[0]
    result = {}
    for name, loss in losses.items():
        got = _gradient(loss, scores.expand(draws, keys))
        bias, deviation = (got.mean(0) - exact).norm(), got.var(0).sum().sqrt()
        result[name] = Estimator((bias / exact.norm()).item(), (deviation / exact.norm()).item())
    return result


def _gradient(loss: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    scores = scores.clone().requires_grad_()
    return torch.autograd.grad(loss(scores).sum(), scores)[0]


def main() -> None:
    """Print every experiment, the trained ones over three seeds."""
    garments = load_garments()
    for name in [*MIXERS, "Swin"]:
        runs = [train_on_garments(name, seed, garments=garments) for seed in range(3)]
        right = torch.tensor([run.accuracy for run in runs])
        took = sum(run.seconds for run in runs) / 3
        print(
            f"{name:18} {runs[0].parameters:7,} parameters  right {right.mean():.3f} ± {right.std():.3f}"
            f"  {took:.1f} s"
        )
    for name, cost in cost_against_length().items():
        time_exponent, memory_exponent = cost.exponents
        print(
            f"{name:20} {1000 * cost.seconds[-1]:7.1f} ms {cost.bytes[-1] / 2**20:6.1f} MiB at "
            f"{cost.lengths[-1]}; exponents {time_exponent:.2f} and {memory_exponent:.2f}"
        )
    for name, rate in tokens_a_second().items():
        print(f"{name:14} {rate:6.0f} tokens a second")
    for name, estimator in gradient_noise().items():
        print(f"{name:38} bias {estimator.bias:.3f}  deviation {estimator.deviation:.2f}")


if __name__ == "__main__":
    main()
