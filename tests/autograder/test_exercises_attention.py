"""Level 2's exercises: independent right answers pass, catalogued mistakes are named, new mistakes fail."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from autograder.check import ROUNDS
from autograder.examine import examine
from autograder.exercises import find, load
from autograder.local import LocalTarget
from autograder.target import Status
from autograder.validate import validate

EXERCISES = load("attention")
MISTAKES = [(exercise, mistake) for exercise in EXERCISES for mistake in exercise.mistakes]


def judge(name, program, seed=7):
    return examine(find(name), LocalTarget(program), seed, ROUNDS)


# A second right answer to each, written another way


def loop_scores(kind, query, key, weights):
    def one(q, k):
        if kind in ("dot", "scaled_dot"):
            return float(q @ k) / (math.sqrt(len(q)) if kind == "scaled_dot" else 1)
        if kind == "general":
            return float(q @ weights[0].numpy() @ k)
        if kind == "additive":
            wq, wk, v = (w.numpy() for w in weights)
            return float(v @ np.tanh(wq @ q + wk @ k))
        w, v = (w.numpy() for w in weights)
        return float(v @ np.tanh(w @ np.concatenate([q, k])))

    query, key = query.numpy(), key.numpy()
    result = np.zeros((*query.shape[:-1], key.shape[-2]))
    for index in np.ndindex(*result.shape):
        result[index] = one(query[index[:-1]], key[(*index[:-2], index[-1])])
    return result


def loop_kernel_regression(query, key, value, bandwidth):
    guesses = []
    for q in query.tolist():
        exponents = [-0.5 * ((q - k) / bandwidth) ** 2 for k in key.tolist()]
        weights = [math.exp(e - max(exponents)) for e in exponents]
        guesses.append(sum(w * v for w, v in zip(weights, value.tolist(), strict=True)) / sum(weights))
    return np.array(guesses)


def einsum_attention(query, key, value, mask=None):
    logits = torch.einsum("...qd,...kd->...qk", query, key) * query.shape[-1] ** -0.5
    if mask is not None:
        logits = torch.where(mask, logits, torch.tensor(-1e9, dtype=logits.dtype))
    weights = F.softmax(logits, dim=-1)
    return torch.einsum("...qk,...ke->...qe", weights, value), weights


def jacobian_gradient(scores, value, upstream):
    weights = torch.softmax(scores, -1)
    jacobian = torch.diag_embed(weights) - weights[..., :, None] * weights[..., None, :]  # (…, q, k, k)
    return torch.einsum("...qe,...ke,...qkj->...qj", upstream, value, jacobian)


SECOND_ANSWERS = {
    "softmax": lambda x, dim: (x - torch.logsumexp(x, dim, keepdim=True)).exp(),
    "nadaraya_watson": loop_kernel_regression,
    "scores": loop_scores,
    "scaled_dot_product_attention": einsum_attention,
    "self_attention": lambda x, wq, wk, wv: einsum_attention(x @ wq, x @ wk, x @ wv),
    "attention_score_gradient": jacobian_gradient,
}


@pytest.mark.parametrize("name", SECOND_ANSWERS)
@pytest.mark.parametrize("seed", range(5))
def test_a_second_right_answer_gets_full_marks(name, seed):
    verdict = judge(name, SECOND_ANSWERS[name], seed)
    assert verdict.earned == verdict.points, verdict


@pytest.mark.parametrize("fill", [-100.0, -1e9, -math.inf])
@pytest.mark.parametrize("seed", range(5))
def test_hiding_with_any_low_enough_score_is_right(fill, seed):
    def answer(query, key, value, mask=None):
        logits = query @ key.mT / math.sqrt(query.size(-1))
        weights = (logits if mask is None else logits.masked_fill(~mask, fill)).softmax(-1)
        return weights @ value, weights

    verdict = examine(find("scaled_dot_product_attention"), LocalTarget(answer), seed, ROUNDS)
    assert verdict.earned == verdict.points


def test_autograd_is_a_right_answer_to_the_gradient():
    def by_autograd(scores, value, upstream):
        scores = scores.clone().requires_grad_()
        return torch.autograd.grad(scores.softmax(-1) @ value, scores, upstream)[0]

    assert judge("attention_score_gradient", by_autograd).status is Status.PASS


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_the_reference_passes_and_the_stub_is_missing(exercise):
    def stub(*args):
        raise NotImplementedError("not written yet")

    assert judge(exercise.name, exercise.reference).status is Status.PASS
    verdict = judge(exercise.name, stub)
    assert verdict.status is Status.MISSING
    assert verdict.earned == 0


@pytest.mark.parametrize(("exercise", "mistake"), MISTAKES, ids=lambda item: item.name)
@pytest.mark.parametrize("seed", [11, 12])
def test_every_mistake_fails_with_its_own_hint(exercise, mistake, seed):
    verdict = judge(exercise.name, mistake.program, seed)
    assert verdict.earned < verdict.points
    assert verdict.mistake == mistake.name
    assert verdict.diagnosis == mistake.hint


def test_the_level_is_valid():
    rows, problems = validate("attention")
    assert problems == []
    assert [row.name for row in rows] == [exercise.name for exercise in EXERCISES]


# Wrong programs that are in no catalogue


def detached(x, dim):
    return torch.softmax(x.detach(), dim)


def half_in_place(x, dim):
    x.sub_(x.amax(dim, keepdim=True))
    return torch.softmax(x, dim)


def sdpa(query, key, value, mask, *, scale=None, dim=-1, fill=-torch.inf):
    logits = query @ key.transpose(-2, -1) / (scale or math.sqrt(query.size(-1)))
    if mask is not None:
        logits = logits.masked_fill(~mask, fill)
    weights = logits.softmax(dim)
    return weights @ value, weights


def one_mask_for_all(query, key, value, mask):
    """Uses the first batch's mask everywhere."""
    if mask is not None:
        mask = mask[(0,) * (mask.dim() - 2)]
    return sdpa(query, key, value, mask)


def mask_of_the_first_query(query, key, value, mask):
    return sdpa(query, key, value, None if mask is None else mask[..., :1, :])


def no_batch_of_masks(query, key, value, mask):
    if mask is not None and mask.shape != (*query.shape[:-1], key.size(-2)):
        mask = None
    return sdpa(query, key, value, mask)


def self_attention(x, wq, wk, wv):
    return sdpa(x @ wq, x @ wk, x @ wv, None)


def only_first_batch(x, wq, wk, wv):
    output, weights = self_attention(x, wq, wk, wv)
    if x.dim() > 2:
        output = output[:1].expand_as(output)
    return output, weights


def memorised_example(x, wq, wk, wv):
    if x.shape == (3, 4):
        return self_attention(x, wq, wk, wv)
    return x @ wv, torch.eye(x.size(-2), dtype=x.dtype).expand(*x.shape[:-1], x.size(-2))


def right_gradient(s, v, up):
    return jacobian_gradient(s, v, up)


def scores_of(kind, query, key, weights):
    return find("scores").reference(kind, query, key, weights)


def same_weight_for_both(kind, query, key, weights):
    if kind == "additive":
        wq, _, v = weights
        return torch.tanh((query @ wq.T)[..., :, None, :] + (query @ wq.T)[..., :, None, :]) @ v
    return scores_of(kind, query, key, weights)


def concat_of_projections(kind, query, key, weights):
    if kind == "concat":
        w, v = weights
        query_part = torch.tanh(query @ w[:, : query.size(-1)].T) @ v
        return query_part[..., :, None] + (torch.tanh(key @ w[:, query.size(-1) :].T) @ v)[..., None, :]
    return scores_of(kind, query, key, weights)


def no_leading_axes(kind, query, key, weights):
    right = scores_of(kind, query, key, weights)
    return right if right.dim() == 2 else right[0, 0]


def attention_regression(q, k, v, h, *, power=2, kernel_dtype=torch.float64):
    distance = ((q[:, None] - k) / h).to(kernel_dtype)
    return ((-(distance.abs() ** power) / 2).softmax(-1) @ v.to(kernel_dtype)).to(q.dtype)


NEW_MISTAKES = {
    "softmax": {
        "detached": detached,
        "in place by a method": half_in_place,
        "float32 inside": lambda x, dim: torch.softmax(x.float(), dim).double(),
        "float32 returned": lambda x, dim: torch.softmax(x.float(), dim),
        "clamped": lambda x, dim: torch.softmax(x.clamp(-50, 50), dim),
        "an epsilon in the denominator": lambda x, dim: torch.softmax(x, dim) / (1 + 1e-6),
        "first axis only": lambda x, dim: torch.softmax(x, 0),
        "last axis unless told a positive one": lambda x, dim: torch.softmax(x, max(dim, -1)),
        "right for matrices": lambda x, dim: torch.softmax(x, dim) if x.dim() == 2 else x,
        "NaN swept away": lambda x, dim: torch.nan_to_num(x.exp() / x.exp().sum(dim, keepdim=True)),
        "sigmoid": lambda x, dim: torch.sigmoid(x),
        "squares": lambda x, dim: x**2 / (x**2).sum(dim, keepdim=True),
        "a list": lambda x, dim: torch.softmax(x, dim).tolist(),
        "cubes with no return": lambda x, dim: None,
    },
    "nadaraya_watson": {
        "cube of the distance": partial(attention_regression, power=3),
        "float32 inside": partial(attention_regression, kernel_dtype=torch.float32),
        "the nearest neighbour": lambda q, k, v, h: v[(q[:, None] - k).abs().argmin(-1)],
        "the plain mean": lambda q, k, v, h: v.mean().expand(len(q)),
        "a column": lambda q, k, v, h: attention_regression(q, k, v, h)[:, None],
        "an epsilon against 0/0": lambda q, k, v, h: (
            (-(((q[:, None] - k) / h) ** 2) / 2).exp()
            @ v
            / ((-(((q[:, None] - k) / h) ** 2) / 2).exp().sum(-1) + 1e-12)
        ),
        "always bandwidth 1": lambda q, k, v, h: attention_regression(q, k, v, 1.0),
    },
    "scores": {
        "keys forgotten": same_weight_for_both,
        "concat as two networks": concat_of_projections,
        "no leading axes": no_leading_axes,
        "everything is a dot product": lambda kind, q, k, w: q @ k.transpose(-2, -1),
        "cosine": lambda kind, q, k, w: (
            F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
            if kind == "dot"
            else scores_of(kind, q, k, w)
        ),
        "softmax too early": lambda kind, q, k, w: scores_of(kind, q, k, w).softmax(-1),
    },
    "scaled_dot_product_attention": {
        "first batch's mask": one_mask_for_all,
        "first query's mask": mask_of_the_first_query,
        "only full masks": no_batch_of_masks,
        "scale of 8": partial(sdpa, scale=8.0),
        "output alone": lambda *args: sdpa(*args)[0],
        "weights first": lambda *args: sdpa(*args)[::-1],
        "weights detached": lambda *args: tuple(part.detach() for part in sdpa(*args)),
        "hidden by −20": partial(sdpa, fill=-20.0),
        "values hidden too": lambda q, k, v, mask: sdpa(q, k, v if mask is None else v * 0.5, mask),
        "clamped": lambda q, k, v, mask: sdpa(q.clamp(-50, 50), k, v, mask),
        "renormalised with an epsilon": lambda *args: tuple(part / (1 + 1e-7) for part in sdpa(*args)),
    },
    "self_attention": {
        "only the first batch": only_first_batch,
        "the example memorised": memorised_example,
        "a causal mask": lambda x, wq, wk, wv: sdpa(
            x @ wq, x @ wk, x @ wv, torch.ones(x.size(-2), x.size(-2)).tril().bool()
        ),
        "keys and values swapped": lambda x, wq, wk, wv: self_attention(x, wq, wq, wv),
        "weights detached": lambda *args: (self_attention(*args)[1].detach() @ (args[0] @ args[3]),) * 2,
        "a residual": lambda x, wq, wk, wv: (self_attention(x, wq, wk, wv)[0] + x @ wv, 0),
        "always √3": lambda x, wq, wk, wv: sdpa(x @ wq, x @ wk, x @ wv, None, scale=math.sqrt(3)),
    },
    "attention_score_gradient": {
        "divided by √k": lambda s, v, up: right_gradient(s, v, up) / math.sqrt(s.size(-1)),
        "averaged over queries": lambda s, v, up: right_gradient(s, v, up) / s.size(-2),
        "float32": lambda s, v, up: right_gradient(s.float(), v.float(), up.float()).double(),
        "right for a single head": lambda s, v, up: right_gradient(s, v, up) if s.dim() == 2 else s * 0,
        "upstream ignored": lambda s, v, up: right_gradient(s, v, torch.ones_like(up)),
        "finite differences": lambda s, v, up: torch.stack(
            [
                ((s + 1e-3 * e).softmax(-1) @ v * up - s.softmax(-1) @ v * up).sum(-1) / 1e-3
                for e in torch.eye(s.size(-1), dtype=s.dtype)
            ],
            -1,
        ),
        "upstream modified": lambda s, v, up: right_gradient(s, v, up.mul_(1.0)) + up.zero_().sum(),
    },
}
WRONG = [(name, label) for name, programs in NEW_MISTAKES.items() for label in programs]


@pytest.mark.parametrize(("name", "label"), WRONG)
@pytest.mark.parametrize("seed", [21, 22])
def test_a_new_mistake_fails(name, label, seed):
    verdict = judge(name, NEW_MISTAKES[name][label], seed)
    assert verdict.earned < verdict.points


def test_partial_answers_get_partial_marks():
    def only_dot_products(kind, query, key, weights):
        if weights:
            raise NotImplementedError("not written yet")
        return scores_of(kind, query, key, weights)

    verdict = judge("scores", only_dot_products)
    assert {group.name: group.earned for group in verdict.groups} == {
        "dot": 1,
        "scaled_dot": 1,
        "general": 0,
        "additive": 0,
        "concat": 0,
    }
