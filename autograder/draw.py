"""Draw the inputs of exercises. Sizes differ from each other, so that a wrong axis shows."""

import torch
from torch import Generator, Tensor


def normal(generator: Generator, *shape: int) -> Tensor:
    """Return float64 numbers with mean 0 and variance 1.

    >>> normal(Generator().manual_seed(0), 2, 3).dtype
    torch.float64
    """
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def sizes(generator: Generator, count: int, low: int = 2, high: int = 7) -> list[int]:
    """Return ``count`` different sizes from ``low`` up to, not including, ``high``.

    >>> len(set(sizes(Generator().manual_seed(0), 5)))
    5
    """
    return (torch.randperm(high - low, generator=generator)[:count] + low).tolist()


def choice(generator: Generator, *options):
    """Return one of ``options``."""
    return options[int(torch.randint(len(options), (), generator=generator))]


def mask(generator: Generator, *shape: int) -> Tensor:
    """Return a boolean mask (…, k) with at least one True and one False along k in every row.

    >>> m = mask(Generator().manual_seed(0), 4, 3)
    >>> bool(m.any(-1).all() and not m.all(-1).any())
    True
    """
    kept = torch.rand(*shape, generator=generator) < 0.6
    first_two = torch.rand(*shape, generator=generator).topk(2, dim=-1).indices
    kept.scatter_(-1, first_two[..., :1], True)
    return kept.scatter_(-1, first_two[..., 1:], False)
