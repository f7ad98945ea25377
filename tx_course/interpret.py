"""Looking inside attention (level 8): record it, follow it through the layers, weigh its heads, remove some.

Axes: b batch, h heads, q query positions, k key positions, n positions of either, d features per head.
Nothing here changes the model it is given.
"""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import NamedTuple

import networkx as nx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.multi_head import MultiHeadAttention


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the weights of every attention in ``model``, by module name, while the block runs.

    An attention is a module whose ``forward`` takes ``weights``, as all of the course's do. Without being
    asked, they compute the average and never the weights; within the block they are asked, and their caller
    still gets what it expects. The dictionary, in the order in which attentions finish, holds what each gave
    last, such as (b, h, q, k); gradients flow through it where they are on.

    >>> layer = MultiHeadAttention(d_model=8, heads=2)
    >>> with record_attention(nn.Sequential(layer)) as weights:
    ...     _ = layer(torch.zeros(1, 3, 8))
    >>> weights["0"].shape
    torch.Size([1, 2, 3, 3])
    """
    weights: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if "weights" in inspect.signature(module.forward).parameters:
                before = module.__dict__.get("forward")  # set only within another recording
                module.forward = _asking(module.forward, name, weights)
                stack.callback(_restore, module, before)
        yield weights


def _asking(forward: Callable, name: str, weights: dict[str, Tensor]) -> Callable:
    """Wrap ``forward`` so that it always hands over its weights, but returns them only to who asked."""
    signature = inspect.signature(forward)

    @wraps(forward)
    def asking(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        asked = bound.arguments.get("weights", False)
        bound.arguments["weights"] = True
        heard, weights[name] = forward(*bound.args, **bound.kwargs)
        return (heard, weights[name]) if asked else heard

    return asking


def _restore(module: nn.Module, before: Callable | None) -> None:
    del module.forward
    if before is not None:
        module.forward = before


def _with_residual(weights: Tensor) -> Tensor:
    """Average the heads of (…, h, n, n) and let half of each position's news be its own: (…, n, n)."""
    if weights.size(-1) != weights.size(-2):
        raise ValueError(
            f"expected self-attention, as many queries as keys, got {tuple(weights.shape)}; "
            "leave cross-attention out"
        )
    return (weights.mean(dim=-3) + torch.eye(weights.size(-1)).to(weights)) / 2


def rollout(weights: Sequence[Tensor]) -> Tensor:
    """Multiply the layers' attention together, residuals included: who hears which input, (b, n, n).

    ``weights`` are the layers' (b, h, n, n), first layer first. A position also keeps what it had, so each
    layer's matrix is half attention (mean over heads), half identity. Rows of the result sum to 1. Source:
    Abnar & Zuidema 2020, section 3.
    Raises ValueError if there is no layer, or if queries and keys differ in number.

    >>> always_first = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    >>> rollout([always_first, always_first])[0, 1].tolist()
    [0.75, 0.25]
    """
    if not weights:
        raise ValueError("expected the weights of at least one layer, got none")
    result = _with_residual(weights[0])
    for layer in weights[1:]:
        result = _with_residual(layer) @ result  # the later layer hears the earlier one's result
    return result


def attention_flow(weights: Sequence[Tensor], query: int) -> Tensor:
    """Return how much could flow from each input to position ``query`` of the last layer, (n).

    ``weights`` are one example's layers (h, n, n), first layer first. Attention (mean over heads, half of it
    residual) gives the widths of pipes between positions of neighbouring layers, and each number is a maximum
    flow. Where rollout multiplies along a path, flow takes its narrowest pipe. Source: Abnar & Zuidema 2020,
    section 3. Slow: for sentences, not for images.

    >>> always_first = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    >>> attention_flow([always_first, always_first], query=1).tolist()
    [1.0, 0.5]
    """
    graph = nx.DiGraph()
    for level, layer in enumerate(weights, start=1):
        for i, row in enumerate(_with_residual(layer).tolist()):
            for j, width in enumerate(row):
                graph.add_edge((level, i), (level - 1, j), capacity=width)
    top = (len(weights), query)
    return torch.tensor([nx.maximum_flow_value(graph, top, (0, j)) for j in range(weights[0].size(-1))])


def head_importance(
    model: nn.Module,
    loss: Callable[[nn.Module, tuple[Tensor, ...]], Tensor],
    batches: Iterable[tuple[Tensor, ...]],
) -> dict[str, Tensor]:
    """Return how much the loss would feel each head, (h) for every ``MultiHeadAttention``, by module name.

    Multiply what each head says by a gate of 1; the importance is the size of the loss's gradient at that
    gate, averaged over examples: a head may help one example and harm another, so the absolute value comes
    first. ``loss(model, batch)`` is a mean over the batch, as in training, and examples come first in every
    tensor. The unit is the loss's. Source: Michel et al. 2019.

    >>> layer = MultiHeadAttention(d_model=8, heads=2)
    >>> batch = (torch.randn(3, 5, 8),)
    >>> head_importance(layer, lambda model, batch: model(*batch).square().mean(), [batch])[""].shape
    torch.Size([2])
    """
    total: dict[str, Tensor] = {}
    count = 0
    for batch in batches:
        with torch.enable_grad(), _gated(model) as gates:
            value = loss(model, batch)
        # The mean has put 1 / b into each example's gradient, so the sum over examples is a mean.
        for name, gradient in zip(gates, torch.autograd.grad(value, list(gates.values())), strict=True):
            here = gradient.abs().flatten(1, -3).sum(dim=(0, 1)).squeeze(-1)  # (h)
            total[name] = total.get(name, 0) + here
        count += 1
    return {name: importance / count for name, importance in total.items()}


@contextmanager
def _gated(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Multiply every head's output by a gate of 1, (b, …, h, 1), one per example; hand out the gates."""
    gates: dict[str, Tensor] = {}

    def hook(name: str, heads: int) -> Callable:
        def multiply(output: nn.Module, args: tuple[Tensor]) -> Tensor:
            x = args[0].unflatten(-1, (heads, -1))  # (b, …, q, h, d)
            if name not in gates:  # a module that is called twice keeps its gate
                shape = (len(x), *[1] * (x.dim() - 3), heads, 1)
                gates[name] = torch.ones(shape, dtype=x.dtype, device=x.device, requires_grad=True)
            return (x * gates[name]).flatten(-2)

        return multiply

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, MultiHeadAttention):
                handle = module.output.register_forward_pre_hook(hook(name, module.heads))
                stack.callback(handle.remove)
        yield gates


def prune_heads(model: nn.Module, heads: Mapping[str, Iterable[int]]) -> nn.Module:
    """Return a copy of ``model`` without some ``heads``: their rows and columns are gone, not zeroed.

    ``heads`` gives, by module name of a ``MultiHeadAttention``, the numbers of the heads to remove. The
    result computes what ``model`` would if those heads said nothing; the kept heads' numbers do not change.
    Raises ValueError if a name or a number is unknown, or if a layer would lose all its heads.

    >>> layer = MultiHeadAttention(d_model=8, heads=4)
    >>> prune_heads(nn.Sequential(layer), {"0": [1, 3]})[0].query.weight.shape
    torch.Size([4, 8])
    """
    model = copy.deepcopy(model)
    modules = dict(model.named_modules())
    for name, removed in heads.items():
        module, removed = modules.get(name), set(removed)
        if not isinstance(module, MultiHeadAttention):
            raise ValueError(f"expected the name of a MultiHeadAttention, got {name!r}")
        if not removed < set(range(module.heads)):
            raise ValueError(
                f"expected some, not all, of the {module.heads} heads of {name!r}, got {sorted(removed)}"
            )
        _keep_heads(module, [head for head in range(module.heads) if head not in removed])
    return model


def _keep_heads(module: MultiHeadAttention, kept: list[int]) -> None:
    """Cut ``module`` down to the heads ``kept``: rows of the projections, columns of the output."""
    features = torch.arange(module.query.out_features).view(module.heads, -1)[kept].flatten()
    for name in ("query", "key", "value"):
        linear = getattr(module, name)
        setattr(module, name, _linear(linear.weight[features], linear.bias[features]))
    module.output = _linear(module.output.weight[:, features], module.output.bias)
    module.heads = len(kept)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(*weight.T.shape, device="meta")
    linear.weight, linear.bias = (nn.Parameter(x.detach().clone()) for x in (weight, bias))
    return linear


class Disagreement(NamedTuple):
    """How much heads differ in what they see, where they look and what they say; larger is more different."""

    subspace: Tensor
    position: Tensor
    output: Tensor


def disagreement(values: Tensor, weights: Tensor, outputs: Tensor) -> Disagreement:
    """Return three scalars that grow as the heads of a layer differ, from −1 (all heads alike) upwards.

    ``values`` (b, h, k, d) are what each head may hear, ``weights`` (b, h, q, k) where it looks, ``outputs``
    (b, h, q, d) what it says before the heads are glued. Subspace and output are minus the mean cosine
    between all pairs of heads at the same position; position is minus the mean over pairs of the sum over
    keys of the two weights' product. All three are means over batch and positions, so that lengths compare.
    Added to what is maximised, each pushes heads apart. Source: Li et al. 2018, section 3.

    >>> same = torch.ones(1, 2, 3, 4)
    >>> looks = torch.eye(3).expand(1, 2, 3, 3)
    >>> [round(x.item(), 3) for x in disagreement(same, looks, same)]
    [-1.0, -1.0, -1.0]
    """
    return Disagreement(_mean_cosine(values), _overlap(weights), _mean_cosine(outputs))


def _mean_cosine(x: Tensor) -> Tensor:
    return _overlap(F.normalize(x, dim=-1))


def _overlap(x: Tensor) -> Tensor:
    """Return minus the mean inner product in (b, h, n, d) over pairs of heads, batch and positions."""
    together = x.sum(dim=1)  # Σ_i Σ_j x_i · x_j is the squared length of the sum
    return -together.square().sum(dim=-1).mean() / x.size(1) ** 2
