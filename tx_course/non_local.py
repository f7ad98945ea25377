"""Attention beyond the local (level 5): pixels ask pixels, and convolution as a special case.

Axes: b batch, c channels, then one to three axes of places (length; rows, columns; time, rows, columns);
n all places in one axis; q the places that ask, k those that are heard; d features inside a block.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.attention import attend, dot


class Gaussian(nn.Module):
    """Score exp(x_i · x_j) on the features as they are, divided by its sum (Wang et al. 2018, eq. 2).

    >>> x, context, value = torch.zeros(1, 5, 4), torch.zeros(1, 3, 4), torch.ones(1, 3, 2)
    >>> [y.shape for y in Gaussian(4, 2)(x, context, value)]
    [torch.Size([1, 5, 2]), torch.Size([1, 5, 3])]
    """

    def __init__(self, channels: int, d_inner: int):
        super().__init__()

    def forward(self, x: Tensor, context: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Average ``value`` (b, k, d) by what ``x`` (b, q, c) asks of ``context`` (b, k, c).

        The result is a pair: the average (b, q, d) and the weights (b, q, k).
        """
        return attend(x, context, value, score=dot, weights=True)


class EmbeddedGaussian(nn.Module):
    """Score exp(θ(x_i) · φ(x_j)), divided by its sum: self-attention (Wang et al. 2018, eq. 3).

    It is ``attend`` with a learned query θ and key φ. The only difference from level 2 is that nothing is
    divided by √d.

    >>> x, context, value = torch.zeros(1, 5, 4), torch.zeros(1, 3, 4), torch.ones(1, 3, 2)
    >>> [y.shape for y in EmbeddedGaussian(4, 2)(x, context, value)]
    [torch.Size([1, 5, 2]), torch.Size([1, 5, 3])]
    """

    def __init__(self, channels: int, d_inner: int):
        super().__init__()
        self.query = nn.Linear(channels, d_inner)
        self.key = nn.Linear(channels, d_inner)

    def forward(self, x: Tensor, context: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Average as ``Gaussian`` does, with its shapes."""
        return attend(self.query(x), self.key(context), value, score=dot, weights=True)


class DotProduct(nn.Module):
    """Score θ(x_i) · φ(x_j), divided by the number of places k (Wang et al. 2018, eq. 4).

    Without the exponential the weights may be negative and sum to anything, so nobody can be singled out.

    >>> x, context, value = torch.zeros(1, 5, 4), torch.zeros(1, 3, 4), torch.ones(1, 3, 2)
    >>> [y.shape for y in DotProduct(4, 2)(x, context, value)]
    [torch.Size([1, 5, 2]), torch.Size([1, 5, 3])]
    """

    def __init__(self, channels: int, d_inner: int):
        super().__init__()
        self.query = nn.Linear(channels, d_inner)
        self.key = nn.Linear(channels, d_inner)

    def forward(self, x: Tensor, context: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Average as ``Gaussian`` does, with its shapes."""
        scores = dot(self.query(x), self.key(context))  # (b, q, k)
        weights = scores / context.size(-2)
        return weights @ value, weights


class Concatenation(nn.Module):
    """Score ReLU(wᵀ [θ(x_i); φ(x_j)]), divided by the number of places k (Wang et al. 2018, eq. 5).

    w splits into a half for θ and a half for φ, so the score of a pair is a sum of two numbers, and the glued
    (b, q, k, 2d) is never built.

    >>> x, context, value = torch.zeros(1, 5, 4), torch.zeros(1, 3, 4), torch.ones(1, 3, 2)
    >>> [y.shape for y in Concatenation(4, 2)(x, context, value)]
    [torch.Size([1, 5, 2]), torch.Size([1, 5, 3])]
    """

    def __init__(self, channels: int, d_inner: int):
        super().__init__()
        self.query = nn.Linear(channels, d_inner)
        self.key = nn.Linear(channels, d_inner)
        self.readout = nn.Parameter(torch.empty(2 * d_inner))
        nn.init.normal_(self.readout, std=(2 * d_inner) ** -0.5)

    def forward(self, x: Tensor, context: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Average as ``Gaussian`` does, with its shapes."""
        for_query, for_key = self.readout.chunk(2)
        asked = self.query(x) @ for_query  # (b, q)
        offered = self.key(context) @ for_key  # (b, k)
        scores = F.relu(asked[..., :, None] + offered[..., None, :])  # (b, q, k)
        weights = scores / context.size(-2)
        return weights @ value, weights


Pairwise = type[Gaussian] | type[EmbeddedGaussian] | type[DotProduct] | type[Concatenation]


def places(x: Tensor) -> Tensor:
    """Line up the places of a picture or clip: (b, c, …) gives (b, n, c), one row for each place.

    >>> places(torch.zeros(2, 3, 4, 5)).shape
    torch.Size([2, 20, 3])
    """
    return x.flatten(2).transpose(1, 2)


def subsample(x: Tensor, size: int) -> Tensor:
    """Keep the largest of every ``size`` places along each axis of space, so that fewer are heard.

    ``x`` is (b, c, length), (b, c, rows, columns) or (b, c, time, rows, columns); time is left whole, as in
    the paper (Wang et al. 2018, 3.3). Raises ValueError for any other number of axes.

    >>> subsample(torch.zeros(2, 3, 7, 8, 8), 2).shape
    torch.Size([2, 3, 7, 4, 4])
    """
    if x.dim() == 3:
        return F.max_pool1d(x, size)
    if x.dim() == 4:
        return F.max_pool2d(x, size)
    if x.dim() == 5:
        return F.max_pool3d(x, (1, size, size))
    raise ValueError(f"expected (b, c) and one to three axes of places, got shape {tuple(x.shape)}")


class NonLocalBlock(nn.Module):
    """Add to every place an average over all places: z_i = W y_i + x_i (Wang et al. 2018, eq. 6).

    The same block serves sequences, images and clips, since only ``subsample`` cares where the places are.
    ``pairwise`` is one of the four classes above; ``d_inner`` is half of ``channels`` unless given, and
    ``pool`` makes each place hear a map that many times smaller. The last layer is a BatchNorm whose scale
    starts at zero, as in the paper, so a new block changes nothing and can be put into a trained network.
    Raises ValueError if ``channels`` is less than 2 and ``d_inner`` is not given.

    >>> block = NonLocalBlock(channels=6)
    >>> x = torch.randn(1, 6, 4, 5)
    >>> torch.equal(block(x), x)
    True
    """

    def __init__(
        self, channels: int, pairwise: Pairwise = EmbeddedGaussian, d_inner: int | None = None, pool: int = 1
    ):
        super().__init__()
        d_inner = channels // 2 if d_inner is None else d_inner
        if d_inner < 1:
            raise ValueError(f"expected at least one feature inside the block, got d_inner={d_inner}")
        self.pool = pool
        self.pairwise = pairwise(channels, d_inner)
        self.value = nn.Linear(channels, d_inner)
        self.output = nn.Linear(d_inner, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor, weights: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return ``x`` (b, c, …) after the block, same shape.

        With ``weights=True`` the result is a pair whose second part is what each place hears, (b, q, k).
        """
        context = places(subsample(x, self.pool))  # (b, k, c)
        heard, w = self.pairwise(places(x), context, self.value(context))  # (b, q, d)
        x = x + self.norm(self.output(heard).transpose(1, 2)).reshape(x.shape)
        return (x, w) if weights else x


class PositionAttention(nn.Module):
    """DANet's attention of places to places: γ · average + x, where γ starts at 0 (Fu et al. 2019, 3.2).

    An embedded Gaussian block whose value keeps all channels, and whose start is a gate, not a zero layer.
    ``d_inner`` features are compared, an eighth of ``channels`` unless given, at least one.

    >>> PositionAttention(channels=8)(torch.zeros(1, 8, 4, 5)).shape
    torch.Size([1, 8, 4, 5])
    """

    def __init__(self, channels: int, d_inner: int | None = None):
        super().__init__()
        self.pairwise = EmbeddedGaussian(channels, d_inner or max(1, channels // 8))
        self.value = nn.Linear(channels, channels)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, weights: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return ``x`` (b, c, …) after the block; with ``weights=True`` also its weights (b, n, n)."""
        row = places(x)  # (b, n, c)
        heard, w = self.pairwise(row, row, self.value(row))
        x = x + self.gamma * heard.transpose(1, 2).reshape(x.shape)
        return (x, w) if weights else x


class ChannelAttention(nn.Module):
    """DANet's attention of channels to channels: γ · average + x, where γ starts at 0 (Fu et al. 2019, 3.3).

    A channel's map is its query, its key and its value, and nothing else is learned. The weights are those of
    the paper's formula, the softmax of A_i · A_j: the more alike, the more is heard, as in every level. The
    authors' published code takes the softmax of max(E) − E, which is the softmax of −E: the less alike, the
    more is heard.

    >>> ChannelAttention()(torch.zeros(1, 8, 4, 5)).shape
    torch.Size([1, 8, 4, 5])
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, weights: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return ``x`` (b, c, …) after the block; with ``weights=True`` also its weights (b, c, c)."""
        channel = x.flatten(2)  # (b, c, n)
        heard, w = attend(channel, channel, channel, score=dot, weights=True)
        x = x + self.gamma * heard.reshape(x.shape)
        return (x, w) if weights else x


def receptive_field(
    kernels: Sequence[int], strides: Sequence[int] | None = None, dilations: Sequence[int] | None = None
) -> int:
    """Return how many pixels wide a stack of convolutions or poolings can see.

    Each layer adds (kernel − 1) · dilation steps, and a step is as long as the product of the strides before
    it. ``strides`` and ``dilations`` are 1 unless given. Raises ValueError if the lists differ in length.

    >>> receptive_field([3, 3, 3]), receptive_field([3, 3, 3, 3], strides=[2, 2, 1, 1])
    (7, 23)
    """
    strides = [1] * len(kernels) if strides is None else strides
    dilations = [1] * len(kernels) if dilations is None else dilations
    width = step = 1
    for kernel, stride, dilation in zip(kernels, strides, dilations, strict=True):
        width += (kernel - 1) * dilation * step
        step *= stride
    return width


def effective_field(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Measure how much each pixel matters to the middle of a network's output.

    ``images`` (b, c, rows, columns) go through ``network`` to (b, features, …, …). The result (rows,
    columns) is the size of the gradient of the middle place's features, averaged over images and divided by
    its sum. Where it is 0 the network cannot see; where it is small it hardly looks (Luo et al. 2016).

    >>> effective_field(nn.Conv2d(1, 2, 3, padding=1), torch.randn(1, 1, 7, 7)).count_nonzero().item()
    9
    """
    images = images.detach().requires_grad_()
    output = network(images)
    middle = output[..., output.size(-2) // 2, output.size(-1) // 2]
    (gradient,) = torch.autograd.grad(middle.sum(), images)
    size = gradient.abs().mean(dim=(0, 1))
    return size / size.sum()


def convolution_as_attention(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute a convolution with ``attend``: one head for each cell of the kernel, each looking at one place.

    ``x`` (b, c, rows, columns), ``weight`` (o, c, kernel rows, kernel columns) with odd sides, ``bias`` (o)
    give (b, o, rows, columns), what ``F.conv2d(x, weight, bias, padding="same")`` gives. A head's mask says
    "the place one up and one left of you", whatever is there; its value is that cell's part of ``weight``. So
    a convolution is attention that never looks at what it hears (Cordonnier et al. 2020).
    Raises ValueError if a side of the kernel is even.

    >>> image, kernel = torch.arange(9.0).view(1, 1, 3, 3), torch.ones(1, 1, 3, 3)
    >>> convolution_as_attention(image, kernel)[0, 0, 1, 1].item()
    36.0
    """
    high, wide = weight.shape[-2:]
    if high % 2 == 0 or wide % 2 == 0:
        raise ValueError(f"expected a kernel with odd sides, which has a middle, got {high} by {wide}")
    padded = F.pad(x, (wide // 2, wide // 2, high // 2, high // 2))
    heads = weight.flatten(2).permute(2, 1, 0)  # (h, c, o), a matrix for each cell
    value = places(padded)[:, None] @ heads  # (b, h, k, o)
    mask = _one_place_each(padded.shape[-2:], (high, wide)).to(x.device)  # (h, q, k)
    query, key = (x.new_zeros(*value.shape[:2], n, 1) for n in mask.shape[1:])  # nothing to compare
    heard = attend(query, key, value, mask).sum(dim=1)  # (b, q, o)
    result = heard.transpose(1, 2).unflatten(2, x.shape[-2:])
    return result if bias is None else result + bias[:, None, None]


def _one_place_each(padded: Sequence[int], kernel: Sequence[int]) -> Tensor:
    """Return for each cell of the ``kernel`` a mask (h, q, k) that is True at the one place each row sees."""
    place = torch.arange(math.prod(padded)).view(*padded)
    windows = place.unfold(0, kernel[0], 1).unfold(1, kernel[1], 1)  # (rows, columns, high, wide)
    seen = windows.flatten(2).flatten(0, 1).T  # (h, q)
    return F.one_hot(seen, math.prod(padded)).bool()
