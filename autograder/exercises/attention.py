"""The exercises of level 2: from softmax to self-attention, and back through its gradient.

Axes: q query positions, k key positions, d features of a query and a key, e features of a value; … stands
for any number of leading axes.
"""

import math

import torch
from torch import Generator, Tensor

from autograder.draw import choice, mask, normal, sizes
from autograder.exercise import Exercise, Group, Mistake, Property
from tx_course import attention
from tx_course.attention import attend

LEVEL = "attention"
WORKED_X = [[1, 0, 1, 0], [0, 2, 0, 2], [1, 1, 1, 1]]
WORKED_WEIGHTS = (
    [[1, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 1]],
    [[0, 0, 1], [1, 1, 0], [0, 1, 0], [1, 1, 0]],
    [[0, 2, 0], [0, 3, 0], [1, 0, 3], [1, 1, 0]],
)


TURNED_HINT = (
    "Right for one matrix. With a batch, `.T` turns all axes around, the batch too. Swap only the last two."
)


def _turned(x: Tensor) -> Tensor:
    """What ``x.T`` gives, without its warning."""
    return x.permute(*range(x.dim() - 1, -1, -1))


def _sums_to_one(weights: Tensor, dim: int) -> bool:
    total = weights.sum(dim)
    return torch.allclose(total, torch.ones_like(total))


# softmax


def _softmax(x: Tensor, dim: int) -> Tensor:
    return attention.softmax(x, dim)


def _rows(g: Generator) -> tuple:
    return normal(g, *sizes(g, 2)), -1


def _any_axis(g: Generator) -> tuple:
    return normal(g, *sizes(g, 3)), choice(g, 0, 1, -2, -3)


def _large_scores(g: Generator) -> tuple:
    """Scores around 1000 in one row and −1000 in the next, with rows that stretch over both."""
    rows, columns = sizes(g, 2, low=3)
    level = torch.tensor([1000.0, -1000.0, 0.0], dtype=torch.float64).repeat(rows)[:rows, None]
    x = normal(g, rows, columns) + level
    x[2, :2] = torch.tensor([1000.0, -1000.0], dtype=torch.float64)
    dim = choice(g, 0, 1)
    return (x if dim else x.T.contiguous()), dim


def _softmax_in_place(x: Tensor, dim: int) -> Tensor:
    x -= x.detach().amax(dim, keepdim=True)
    return x.exp() / x.exp().sum(dim, keepdim=True)


def _softmax_without_keepdim(x: Tensor, dim: int) -> Tensor:
    e = (x - x.amax()).exp()
    return e / e.sum(dim)


def _shifted(x: Tensor, shift: Tensor, dim: int) -> Tensor:
    e = (x - shift).exp()
    return e / e.sum(dim, keepdim=True)


SOFTMAX = Exercise(
    name="softmax",
    level=LEVEL,
    title="Softmax that does not overflow",
    minutes=10,
    difficulty=1,
    reference=_softmax,
    groups=(
        Group("along the last axis", 2, _rows),
        Group("along any axis", 2, _any_axis),
        Group("scores of 1000", 2, _large_scores),
        Group("gradients", 1, _any_axis, gradients=True),
    ),
    mistakes=(
        Mistake(
            "no maximum subtracted",
            lambda x, dim: x.exp() / x.exp().sum(dim, keepdim=True),
            "Right for small scores. But exp(1000) is infinite, and inf/inf is NaN. Softmax does not change "
            "when one number is taken from every score: which number makes the largest exponent 0?",
        ),
        Mistake(
            "one maximum for the whole tensor",
            lambda x, dim: _shifted(x, x.amax(), dim),
            "You subtract one maximum for the whole tensor. A row whose scores are far below it becomes all "
            "exp(−2000) = 0, and then 0/0. Each row needs the maximum of its own.",
        ),
        Mistake(
            "the mean subtracted",
            lambda x, dim: _shifted(x, x.mean(dim, keepdim=True), dim),
            "Subtracting the mean is a good idea that is not enough: the largest score can still be a "
            "thousand above the mean. After the right shift no exponent is above 0.",
        ),
        Mistake(
            "always the last axis",
            lambda x, dim: _softmax(x, -1),
            "Your weights always sum to 1 along the last axis. Use `dim` in every step that looks along an "
            "axis.",
        ),
        Mistake(
            "one sum for the whole tensor",
            lambda x, dim: (
                (x - x.amax(dim, keepdim=True)).exp() / (x - x.amax(dim, keepdim=True)).exp().sum()
            ),
            "All your numbers together sum to 1. They should sum to 1 along `dim`, once for every place on "
            "the other axes: look at the sum in the denominator.",
        ),
        Mistake(
            "the normalising axis lost",
            _softmax_without_keepdim,
            "`sum(dim)` drops the axis it sums over, so dividing lines the sums up with the wrong axis. The "
            "sum should keep that axis, with length 1.",
        ),
        Mistake(
            "no exponential",
            lambda x, dim: x / x.sum(dim, keepdim=True),
            "You divide each score by the sum of the scores. Scores can be negative and sum to 0; first turn "
            "every score into a positive number with exp.",
        ),
        Mistake(
            "the logarithm of the weights",
            lambda x, dim: _softmax(x, dim).log(),
            "These are the logarithms of the weights (they are all negative). One exp is still to come.",
        ),
        Mistake(
            "the input overwritten",
            _softmax_in_place,
            "The weights are right, but `x -= …` writes into the caller's tensor. Whoever called you still "
            "needs those scores: make a new tensor.",
        ),
    ),
    properties=(
        Property("Your weights do not sum to 1 along `dim`.", lambda w, x, dim: _sums_to_one(w, dim)),
        Property(
            "Some of your weights are negative; a weight never is.", lambda w, x, dim: bool((w >= 0).all())
        ),
    ),
)

# nadaraya_watson


def _regression(g: Generator, bandwidth: float, far: float = 0.0) -> tuple:
    q, k = sizes(g, 2)
    return normal(g, q) + far, normal(g, k), normal(g, k) + 2, bandwidth


def _kernel(query: Tensor, key: Tensor, bandwidth: float) -> Tensor:
    """The Gaussian scores (q, k), in nats."""
    return -((query[:, None] - key) ** 2) / (2 * bandwidth**2)


NADARAYA_WATSON = Exercise(
    name="nadaraya_watson",
    level=LEVEL,
    title="Kernel regression: attention without learned weights",
    minutes=15,
    difficulty=2,
    reference=attention.nadaraya_watson,
    groups=(
        Group("predictions", 2, lambda g: _regression(g, bandwidth=choice(g, 0.7, 1.3))),
        Group("narrow and wide kernels", 1, lambda g: _regression(g, bandwidth=choice(g, 0.2, 5.0))),
        # Far enough that every kernel underflows, wide enough that several points still share the weight.
        Group("questions far from the data", 2, lambda g: _regression(g, bandwidth=20.0, far=1000.0)),
    ),
    mistakes=(
        Mistake(
            "the factor 2 forgotten",
            lambda q, k, v, h: (_kernel(q, k, h) * 2).softmax(-1) @ v,
            "Your kernel is narrower than asked, by √2. A Gaussian's exponent is −½ (distance / bandwidth)².",
        ),
        Mistake(
            "the bandwidth not squared",
            lambda q, k, v, h: (_kernel(q, k, h) * h).softmax(-1) @ v,
            "The distance is squared and the bandwidth is not, so the units do not cancel. Divide first, "
            "then square: distance / bandwidth has no unit.",
        ),
        Mistake(
            "multiplied by the bandwidth",
            lambda q, k, v, h: (_kernel(q, k, h) * h**4).softmax(-1) @ v,
            "A larger bandwidth makes your kernel narrower. Points within one bandwidth should count: divide "
            "by it.",
        ),
        Mistake(
            "the distance not squared",
            lambda q, k, v, h: (-(q[:, None] - k).abs() / h).softmax(-1) @ v,
            "Your weights fall like exp(−|distance|): that is the Laplace kernel, with a spike at 0. The "
            "Gaussian kernel takes the square of the distance.",
        ),
        Mistake(
            "the minus sign lost",
            lambda q, k, v, h: (-_kernel(q, k, h)).softmax(-1) @ v,
            "The farthest points get the largest weights. A score should fall as the distance grows: look at "
            "its sign.",
        ),
        Mistake(
            "normalised over the questions",
            lambda q, k, v, h: _kernel(q, k, h).softmax(0) @ v,
            "For each data point your weights sum to 1 over the questions. It is each question that shares "
            "its weight of 1 out among the data points.",
        ),
        Mistake(
            "not normalised",
            lambda q, k, v, h: _kernel(q, k, h).exp() @ v,
            "This is a weighted sum, not yet an average: nothing divides by the sum of the weights, so a "
            "question near many points gets a larger answer.",
        ),
        Mistake(
            "a Gaussian density, not normalised",
            lambda q, k, v, h: (_kernel(q, k, h).exp() / (h * math.sqrt(2 * math.pi))) @ v / len(k),
            "You divide by the constants of the Gaussian density. They make the curve's area 1, but the "
            "weights of a question still do not sum to 1. Divide by their sum.",
        ),
        Mistake(
            "all kernels underflow",
            lambda q, k, v, h: (_kernel(q, k, h).exp() / _kernel(q, k, h).exp().sum(-1, keepdim=True)) @ v,
            "Right near the data. Far away every exp(…) rounds to 0, and 0/0 is NaN, though the nearest "
            "point should still decide. Your softmax has the cure: it looks only at differences between "
            "scores.",
        ),
    ),
    properties=(
        Property(
            "A weighted average lies between the smallest and the largest value, and yours does not.",
            lambda y, q, k, v, h: bool((y <= v.max() + 1e-9).all() and (y >= v.min() - 1e-9).all()),
        ),
    ),
    needs=("softmax",),
)

# scores


def _scores(kind: str, query: Tensor, key: Tensor, weights: tuple) -> Tensor:
    return attention.SCORES[kind](query, key, *weights)


def _pair(g: Generator, kind: str) -> tuple:
    """Draw queries and keys, with or without leading axes, and the weights of the score. A query and a key
    differ in width where the kind allows it."""
    leading = choice(g, (), (2, 3))
    q, k, m, n, a = sizes(g, 5)
    if kind in ("dot", "scaled_dot"):
        n = m
    weights = {
        "general": ((m, n),),
        "additive": ((a, m), (a, n), (a,)),
        "concat": ((a, m + n), (a,)),
    }.get(kind, ())
    drawn = tuple(normal(g, *shape) / 2 for shape in weights)
    return kind, normal(g, *leading, q, m), normal(g, *leading, k, n), drawn


def _of(kind: str, program):
    """A mistake in one kind of score: all the others are right."""

    def scores(chosen: str, query: Tensor, key: Tensor, weights: tuple) -> Tensor:
        return program(query, key, *weights) if chosen == kind else _scores(chosen, query, key, weights)

    return scores


def _between(query: Tensor, key: Tensor, wq: Tensor, wk: Tensor) -> Tensor:
    """W_q q + W_k k for every pair: (…, q, k, a)."""
    return (query @ wq.T)[..., :, None, :] + (key @ wk.T)[..., None, :, :]


def _concat_swapped(query: Tensor, key: Tensor, weight: Tensor, readout: Tensor) -> Tensor:
    wk, wq = weight.split([key.size(-1), query.size(-1)], dim=-1)
    return torch.tanh(_between(query, key, wq, wk)) @ readout


SCORES = Exercise(
    name="scores",
    level=LEVEL,
    title="Five ways to score a match",
    minutes=20,
    difficulty=2,
    reference=_scores,
    groups=(
        Group("dot", 1, lambda g: _pair(g, "dot")),
        Group("scaled_dot", 1, lambda g: _pair(g, "scaled_dot")),
        Group("general", 2, lambda g: _pair(g, "general")),
        Group("additive", 2, lambda g: _pair(g, "additive")),
        Group("concat", 2, lambda g: _pair(g, "concat")),
    ),
    mistakes=(
        Mistake(
            "keys ask, queries answer",
            lambda kind, q, k, w: _scores(kind, q, k, w).transpose(-2, -1),
            "Your table of scores lies on its side: one row per query and one column per key, please. The "
            "row is the one who asks.",
        ),
        Mistake(
            "all axes turned around",
            lambda kind, q, k, w: _scores(kind, q, k, w) if k.dim() == 2 else q @ _turned(k),
            TURNED_HINT,
        ),
        Mistake(
            "only pairs with equal number",
            _of("dot", lambda q, k: (q * k).sum(-1)),
            "Multiplying element by element scores query 1 with key 1 and query 2 with key 2 only. Every "
            "query meets every key: a table (q, k).",
        ),
        Mistake(
            "divided by d",
            _of("scaled_dot", lambda q, k: q @ k.transpose(-2, -1) / q.size(-1)),
            "You divide by d. The sum of d products has variance d, so its typical size is √d: divide by "
            "that.",
        ),
        Mistake(
            "divided by the root of the number of keys",
            _of("scaled_dot", lambda q, k: q @ k.transpose(-2, -1) / math.sqrt(k.size(-2))),
            "You divide by the root of the number of keys. The dot product sums over features: it is their "
            "number that counts.",
        ),
        Mistake(
            "multiplied by the root of d",
            _of("scaled_dot", lambda q, k: q @ k.transpose(-2, -1) * math.sqrt(q.size(-1))),
            "Your scaled scores grow with d. The scale is there to undo that growth: divide.",
        ),
        Mistake(
            "not scaled",
            _of("scaled_dot", lambda q, k: q @ k.transpose(-2, -1)),
            "Your scaled_dot gives the same numbers as dot. What is it scaled by?",
        ),
        Mistake(
            "no tanh in the additive score",
            _of("additive", lambda q, k, wq, wk, v: _between(q, k, wq, wk) @ v),
            "In your additive score nothing bends: without tanh it is a part for the query plus a part for "
            "the key, and softmax cancels the query's part. The two never meet.",
        ),
        Mistake(
            "tanh before the sum in the additive score",
            _of(
                "additive",
                lambda q, k, wq, wk, v: (
                    (torch.tanh(q @ wq.T) @ v)[..., :, None] + (torch.tanh(k @ wk.T) @ v)[..., None, :]
                ),
            ),
            "You bend query and key one by one and then add. So they never meet: first add the two "
            "projections, then take tanh of the sum.",
        ),
        Mistake(
            "tanh after the readout in the additive score",
            _of("additive", lambda q, k, wq, wk, v: torch.tanh(_between(q, k, wq, wk) @ v)),
            "Your additive scores all lie between −1 and 1: tanh comes last. It belongs to the hidden layer, "
            "before the readout v.",
        ),
        Mistake(
            "relu in the additive score",
            _of("additive", lambda q, k, wq, wk, v: torch.relu(_between(q, k, wq, wk)) @ v),
            "Your additive score bends with relu; here the hidden layer uses tanh.",
        ),
        Mistake(
            "no tanh in the concat score",
            _of("concat", lambda q, k, w, v: _between(q, k, *w.split([q.size(-1), k.size(-1)], -1)) @ v),
            "In your concat score nothing bends. The hidden layer takes tanh before the readout v.",
        ),
        Mistake(
            "key before query in the concat score",
            _of("concat", _concat_swapped),
            "Your concat score glues [key; query]. The query comes first: W's first columns are for the "
            "query.",
        ),
    ),
)

# scaled_dot_product_attention


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    return attend(query, key, value, mask, weights=True)


def _qkv(g: Generator, leading: tuple[int, ...] = ()) -> tuple:
    q, k, d, e = sizes(g, 4)
    return normal(g, *leading, q, d), normal(g, *leading, k, d), normal(g, *leading, k, e)


def _unmasked(g: Generator) -> tuple:
    return *_qkv(g), None


def _masked(g: Generator) -> tuple:
    query, key, value = _qkv(g)
    return query, key, value, mask(g, query.size(-2), key.size(-2))


def _batched(g: Generator) -> tuple:
    """Two leading axes, with a mask of full size, or one of padding that is the same for each head."""
    b, h = sizes(g, 2, high=5)
    query, key, value = _qkv(g, (b, h))
    q, k = query.size(-2), key.size(-2)
    return query, key, value, mask(g, *choice(g, (b, h, q, k), (b, 1, 1, k)))


def _sharp(g: Generator) -> tuple:
    """Large scores, none below 0: hiding a key with −100 instead of −∞ is then right as well."""
    query, key, value, allowed = _masked(g)
    return query.abs() * 300, key.abs() * 10, value, allowed


def _product(query: Tensor, key: Tensor) -> Tensor:
    return query @ key.transpose(-2, -1)


def _hidden(scores: Tensor, mask: Tensor | None, fill: float = -torch.inf) -> Tensor:
    return scores if mask is None else scores.masked_fill(~mask, fill)


def _average(scores: Tensor, value: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    weights = scores.softmax(dim)
    return weights @ value, weights


def _scaled(query: Tensor, key: Tensor) -> Tensor:
    return _product(query, key) / math.sqrt(query.size(-1))


def _mask_after_softmax(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    weights = _hidden(_scaled(q, k).softmax(-1), mask, 0.0)
    return weights @ v, weights


def _overflowing(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    weights = _hidden(_scaled(q, k), mask).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    return weights @ v, weights


SCALED_DOT_PRODUCT_ATTENTION = Exercise(
    name="scaled_dot_product_attention",
    level=LEVEL,
    title="Scaled dot-product attention with a mask",
    minutes=25,
    difficulty=2,
    reference=_attention,
    groups=(
        Group("without a mask", 2, _unmasked),
        Group("with a mask", 2, _masked),
        Group("batches and heads", 2, _batched),
        Group("scores of 1000", 1, _sharp),
        Group("gradients", 1, _masked, gradients=True),
    ),
    mistakes=(
        Mistake(
            "no scale",
            lambda q, k, v, mask: _average(_hidden(_product(q, k), mask), v),
            "The scale is missing: the scores are not yet divided by √d.",
        ),
        Mistake(
            "divided by d",
            lambda q, k, v, mask: _average(_hidden(_product(q, k) / q.size(-1), mask), v),
            "You divide the scores by d, which makes the weights too even. A sum of d products has a typical "
            "size of √d: divide by that.",
        ),
        Mistake(
            "scaled by the width of the values",
            lambda q, k, v, mask: _average(_hidden(_product(q, k) / math.sqrt(v.size(-1)), mask), v),
            "You scale by the width of the values. The dot product is between queries and keys, so it is "
            "their width that counts.",
        ),
        Mistake(
            "scaled by the number of keys",
            lambda q, k, v, mask: _average(_hidden(_product(q, k) / math.sqrt(k.size(-2)), mask), v),
            "You scale by the number of keys. The dot product sums over features: it is their number that "
            "counts.",
        ),
        Mistake(
            "normalised over the queries",
            lambda q, k, v, mask: _average(_hidden(_scaled(q, k), mask, -1e9), v, -2),
            "Your columns sum to 1, not your rows. Each query shares its weight of 1 out among the keys.",
        ),
        Mistake(
            "mask after softmax",
            _mask_after_softmax,
            "You set weights to 0 after softmax. The hidden keys are still in the denominator, so your rows "
            "sum to less than 1. Hide them while they are still scores.",
        ),
        Mistake(
            "hidden scores set to 0",
            lambda q, k, v, mask: _average(_hidden(_scaled(q, k), mask, 0.0), v),
            "A score of 0 is no silence: exp(0) = 1. Which score gives a weight of 0?",
        ),
        Mistake(
            "mask the wrong way round",
            lambda q, k, v, mask: _average(
                _scaled(q, k) if mask is None else _hidden(_scaled(q, k), ~mask), v
            ),
            "Your mask works the wrong way round. Here True means “may attend” (some libraries mean the "
            "opposite).",
        ),
        Mistake(
            "mask ignored",
            lambda q, k, v, mask: _average(_scaled(q, k), v),
            "Hidden keys still get weight: the mask is not used yet.",
        ),
        Mistake(
            "all axes turned around",
            lambda q, k, v, mask: _average(_hidden(q @ _turned(k) / math.sqrt(q.size(-1)), mask), v),
            TURNED_HINT,
        ),
        Mistake(
            "softmax overflows",
            _overflowing,
            "Right for small scores, NaN for large ones: exp of the raw scores overflows. Your own softmax "
            "knows the cure.",
        ),
        Mistake(
            "only one scale for the mask",
            lambda q, k, v, mask: _average(
                _scaled(q, k) if mask is None else _scaled(q, k) - (~mask) * 10.0, v
            ),
            "Taking 10 from a hidden score leaves it a little weight, and all of it where scores are large. "
            "Take so much that nothing is left.",
        ),
    ),
    properties=(
        Property(
            "Your weights do not sum to 1 over the keys.",
            lambda out, q, k, v, mask: _sums_to_one(out[1], -1),
        ),
        Property(
            "A key that the mask hides (False) still gets weight.",
            lambda out, q, k, v, mask: mask is None or not out[1].masked_fill(mask, 0).any(),
        ),
        Property(
            "Your output is not the average of the values under your own weights.",
            lambda out, q, k, v, mask: torch.allclose(out[0], out[1] @ v),
        ),
    ),
    needs=("softmax", "scores"),
)

# self_attention


def _self_attention(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor) -> tuple[Tensor, Tensor]:
    return attend(x @ wq, x @ wk, x @ wv, weights=True)


def _projected(g: Generator, leading: tuple[int, ...] = ()) -> tuple:
    n, m, d, e = sizes(g, 4)
    return normal(g, *leading, n, m), *(normal(g, m, width) / math.sqrt(m) for width in (d, d, e))


def _worked_example(g: Generator) -> tuple:
    return tuple(torch.tensor(rows, dtype=torch.float64) for rows in (WORKED_X, *WORKED_WEIGHTS))


def _one_pool(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor) -> tuple[Tensor, Tensor]:
    scores = _scaled(x @ wq, x @ wk)
    weights = scores.flatten(-2).softmax(-1).reshape(scores.shape)
    return weights @ (x @ wv), weights


SELF_ATTENTION = Exercise(
    name="self_attention",
    level=LEVEL,
    title="Self-attention with projections",
    minutes=15,
    difficulty=2,
    reference=_self_attention,
    groups=(
        Group("the worked example", 1, _worked_example),
        Group("random weights", 2, _projected),
        Group("batches", 1, lambda g: _projected(g, (3, 2))),
        Group("gradients", 1, _projected, gradients=True),
    ),
    mistakes=(
        Mistake(
            "no scale",
            lambda x, wq, wk, wv: _average(_product(x @ wq, x @ wk), x @ wv),
            "These are the numbers without the scale, as in the text the worked example comes from. Here the "
            "scores are divided by √d, with d the width of the projected queries.",
        ),
        Mistake(
            "scaled by the model's width",
            lambda x, wq, wk, wv: _average(_product(x @ wq, x @ wk) / math.sqrt(x.size(-1)), x @ wv),
            "You scale by the width of x. The dot product is taken after the projection, between queries and "
            "keys of width d: it is that width that counts.",
        ),
        Mistake(
            "values not projected",
            lambda x, wq, wk, wv: _average(_scaled(x @ wq, x @ wk), x),
            "You average x itself. The values are a third projection of x.",
        ),
        Mistake(
            "queries and keys swapped",
            lambda x, wq, wk, wv: _average(_scaled(x @ wk, x @ wq), x @ wv),
            "Queries and keys have changed places: the row of the score table is the one who asks.",
        ),
        Mistake(
            "keys made with the queries' weights",
            lambda x, wq, wk, wv: _average(_scaled(x @ wq, x @ wq), x @ wv),
            "Your keys are the queries over again, so every word looks for words like itself. Keys have a "
            "projection of their own.",
        ),
        Mistake(
            "nothing projected but the values",
            lambda x, wq, wk, wv: _average(_scaled(x, x), x @ wv),
            "Your scores compare the raw inputs. First project x to queries and to keys.",
        ),
        Mistake(
            "normalised over the queries",
            lambda x, wq, wk, wv: _average(_scaled(x @ wq, x @ wk), x @ wv, -2),
            "Your columns sum to 1, not your rows. Each word shares its weight of 1 out among all words.",
        ),
        Mistake(
            "averaged in one pool",
            _one_pool,
            "All your weights together sum to 1. Every word has a weight of 1 of its own to share out.",
        ),
    ),
    properties=(
        Property("Your weights do not sum to 1 over the keys.", lambda out, *args: _sums_to_one(out[1], -1)),
        Property(
            "Your output is not the average of the values x W_v under your own weights.",
            lambda out, x, wq, wk, wv: torch.allclose(out[0], out[1] @ (x @ wv)),
        ),
    ),
    needs=("softmax", "scores", "scaled_dot_product_attention"),
)

# attention_score_gradient


def _score_gradient(scores: Tensor, value: Tensor, upstream: Tensor) -> Tensor:
    weights = attention.softmax(scores)
    blame = upstream @ value.transpose(-2, -1)  # (…, q, k)
    return weights * (blame - (weights * blame).sum(-1, keepdim=True))


def _backward(g: Generator, leading: tuple[int, ...] = (), size: float = 1.0) -> tuple:
    q, k, e = sizes(g, 3)
    return normal(g, *leading, q, k) * size, normal(g, *leading, k, e), normal(g, *leading, q, e)


def _from_parts(combine, dim: int = -1):
    """A program that has the weights and their blame (both …, q, k) right, and combines them its own way."""
    return lambda s, v, up: combine(attention.softmax(s, dim), up @ v.transpose(-2, -1))


def _overflowing_gradient(scores: Tensor, value: Tensor, upstream: Tensor) -> Tensor:
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    blame = upstream @ value.transpose(-2, -1)
    return weights * (blame - (weights * blame).sum(-1, keepdim=True))


ATTENTION_SCORE_GRADIENT = Exercise(
    name="attention_score_gradient",
    level=LEVEL,
    title="The gradient of attention, by hand",
    minutes=30,
    difficulty=3,
    reference=_score_gradient,
    groups=(
        Group("one head", 3, _backward),
        Group("batches and heads", 2, lambda g: _backward(g, (2, 3))),
        Group("scores of 1000", 1, lambda g: _backward(g, size=1000.0)),
    ),
    mistakes=(
        Mistake(
            "only the gradient of the weights",
            lambda s, v, up: up @ v.transpose(-2, -1),
            "This is the gradient with respect to the weights: half of the way. The weights still depend on "
            "the scores through softmax.",
        ),
        Mistake(
            "the competition forgotten",
            _from_parts(lambda w, blame: w * blame),
            "You have the weight times its blame. But softmax is a competition: raising one score lowers "
            "every other weight of the row, and that part is missing. (The rows of the result sum to 0.)",
        ),
        Mistake(
            "only the diagonal of the Jacobian",
            _from_parts(lambda w, blame: w * (1 - w) * blame),
            "a (1 − a) is the derivative of one weight by its own score: the diagonal of the Jacobian. Every "
            "score also moves the other weights of its row, by −aᵢ aⱼ.",
        ),
        Mistake(
            "the mean instead of the weighted sum",
            _from_parts(lambda w, blame: w * (blame - blame.mean(-1, keepdim=True))),
            "You subtract the plain mean of the blame over the keys. The average has to be taken with the "
            "attention weights.",
        ),
        Mistake(
            "a sum without weights",
            _from_parts(lambda w, blame: w * (blame - blame.sum(-1, keepdim=True))),
            "You subtract the plain sum of the blame over the keys. Each term of that sum carries its "
            "weight.",
        ),
        Mistake(
            "the last weight forgotten",
            _from_parts(lambda w, blame: blame - (w * blame).sum(-1, keepdim=True)),
            "The bracket is right: the blame of a key, less the average blame. What is missing is the factor "
            "in front of it.",
        ),
        Mistake(
            "plus instead of minus",
            _from_parts(lambda w, blame: w * (blame + (w * blame).sum(-1, keepdim=True))),
            "One sign is wrong: raising a score takes weight away from the others. (The rows of the result "
            "sum to 0.)",
        ),
        Mistake(
            "the wrong sign",
            lambda s, v, up: -_score_gradient(s, v, up),
            "Every number has the wrong sign. This is the gradient itself, not the step downhill.",
        ),
        Mistake(
            "summed over the queries",
            _from_parts(lambda w, blame: w * (blame - (w * blame).sum(-2, keepdim=True))),
            "You sum over the queries. The weights of one query compete with each other, so the sum runs "
            "over the keys.",
        ),
        Mistake(
            "softmax over the queries",
            _from_parts(lambda w, blame: w * (blame - (w * blame).sum(-2, keepdim=True)), dim=-2),
            "Your softmax runs over the queries; so do the sums. Each row, one query's scores, is a softmax "
            "of its own.",
        ),
        Mistake(
            "softmax overflows",
            _overflowing_gradient,
            "Right for small scores, NaN for large ones: exp of the raw scores overflows. Your own softmax "
            "knows the cure.",
        ),
    ),
    properties=(
        Property(
            "Each row of the gradient sums to 0 (adding one number to all scores changes nothing); yours do "
            "not.",
            lambda grad, s, v, up: torch.allclose(
                grad.sum(-1), torch.zeros(grad.shape[:-1], dtype=grad.dtype)
            ),
        ),
    ),
    needs=("softmax",),
)

EXERCISES = (
    SOFTMAX,
    NADARAYA_WATSON,
    SCORES,
    SCALED_DOT_PRODUCT_ATTENTION,
    SELF_ATTENTION,
    ATTENTION_SCORE_GRADIENT,
)
