"""One training loop for every level: seeded, AdamW, an optional schedule, and the loss of each step."""

import math
from collections.abc import Callable

import torch
from rich.progress import track
from torch import Tensor, nn

Draw = Callable[[torch.Generator], tuple[Tensor, ...]]
Loss = Callable[[nn.Module, tuple[Tensor, ...]], Tensor]
Schedule = Callable[[float], float]


def fit(
    model: nn.Module,
    draw: Draw,
    loss: Loss,
    steps: int,
    *,
    learning_rate: float = 1e-3,
    schedule: Schedule | None = None,
    clip: float = 1.0,
    seed: int = 0,
    weight_decay: float = 0.0,
    progress: bool = False,
) -> list[float]:
    """Train ``model`` in place for ``steps`` steps of AdamW, and return the loss of each step.

    ``draw(generator)`` makes a batch from a seeded CPU generator, where the model's parameters are;
    ``loss(model, batch)`` is a scalar. ``schedule(fraction done)`` multiplies the learning rate. Gradients
    longer than ``clip`` (their norm over all parameters) are cut to that length. ``seed`` also fixes dropout,
    and the caller's random state is left as it was; the model's first weights are the caller's to seed.
    Parameters that require no gradient stay as they are. The model is left in evaluation mode.
    Raises ValueError when the loss is no longer a finite number. Source of AdamW: Loshchilov & Hutter 2019.

    >>> model = nn.Linear(1, 1)
    >>> draw = sampler(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [3.0]]), size=8)
    >>> history = fit(model, draw, lambda model, batch: (model(batch[0]) - batch[1]).square().mean(), 500,
    ...               learning_rate=0.1, schedule=cosine())
    >>> round(model(torch.tensor([2.0])).item(), 2)
    5.0
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, learning_rate, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(seed)
    gpus = sorted({p.get_device() for p in parameters if p.is_cuda})
    history = []
    model.train()
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        for step in track(range(steps), "training") if progress else range(steps):
            # Half a step on: neither a warm-up's first step nor a cosine's last is lost to a rate of 0.
            rate = schedule((step + 0.5) / steps) if schedule else 1.0
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rate
            value = loss(model, draw(generator))
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            history.append(value.item())
            if not math.isfinite(history[-1]):
                raise ValueError(f"the loss is {history[-1]} at step {step}; try a lower learning rate")
    model.eval()
    return history


def cosine(warmup: float = 0.0) -> Schedule:
    """Return a schedule that rises evenly over the fraction ``warmup`` of the steps, then falls as half a
    cosine to 0.

    Source: Loshchilov & Hutter 2017. Raises ValueError unless 0 ≤ ``warmup`` < 1.

    >>> [round(cosine(warmup=0.2)(done), 2) for done in (0.1, 0.2, 0.6, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is a fraction of the steps, at least 0 and below 1; got {warmup}")

    def multiplier(done: float) -> float:
        if done < warmup:
            return done / warmup
        return (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))) / 2

    return multiplier


def sampler(*tensors: Tensor, size: int, device: torch.device | str = "cpu") -> Draw:
    """Return a ``draw`` that takes ``size`` rows at random, with replacement, the same rows of every tensor.

    The tensors (n, …) are moved to ``device`` once. Raises ValueError if they differ in their number of rows.

    >>> draw = sampler(torch.arange(9), torch.arange(9) ** 2, size=4)
    >>> number, square = draw(torch.Generator().manual_seed(0))
    >>> torch.equal(number**2, square)
    True
    """
    rows = {len(tensor) for tensor in tensors}
    if len(rows) != 1:
        raise ValueError(f"expected tensors with one number of rows, got {[len(x) for x in tensors]}")
    (count,) = rows
    placed = [tensor.to(device) for tensor in tensors]

    def draw(generator: torch.Generator) -> tuple[Tensor, ...]:
        row = torch.randint(count, (size,), generator=generator).to(device)
        return tuple(tensor[row] for tensor in placed)

    return draw
