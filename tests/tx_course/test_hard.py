"""Hard attention is right on average, and sparsemax is the nearest point of the simplex."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from tx_course.attention import attend, attention_weights
from tx_course.hard import (
    gumbel_softmax,
    hard_attention,
    sample_key,
    score_function_loss,
    sparsemax,
    sparsemax_attention,
    straight_through,
)

DRAWS = 40_000


def qkv(q=2, k=4, d=3, e=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((q, d), (k, d), (k, e))
    )


def within_five_errors(samples, expected):
    """Whether the mean over the first axis is as near to ``expected`` as chance allows."""
    error = samples.std(0) / len(samples) ** 0.5
    return bool(((samples.mean(0) - expected).abs() < 5 * error + 1e-12).all())


def test_the_mean_of_hard_attention_is_soft_attention():
    query, key, value = qkv()
    mask = torch.tensor([[True, True, False, True], [True, False, True, True]])
    drawn, log_probability = hard_attention(
        query.expand(DRAWS, -1, -1), key, value, mask, torch.Generator().manual_seed(1)
    )
    assert within_five_errors(drawn, attend(query, key, value, mask))
    chosen = (drawn[:, :, None] == value).all(-1)  # (draws, q, k)
    weights = attention_weights(query, key, mask)
    torch.testing.assert_close(log_probability, (chosen * weights).sum(-1).log())
    assert not (chosen & ~mask).any()


@pytest.mark.parametrize("baseline", [0.0, 1.5], ids=["no baseline", "a baseline"])
def test_the_score_functions_gradient_is_right_on_average(baseline):
    scores = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64, requires_grad=True)
    cost = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    exact = torch.autograd.grad((scores.softmax(-1) * cost).sum(), scores)[0]
    many = scores.detach().expand(DRAWS, 3).clone().requires_grad_()
    weights = many.softmax(-1)
    index = sample_key(weights, torch.Generator().manual_seed(2))
    log_probability = weights.gather(-1, index[:, None])[:, 0].log()
    loss = score_function_loss(cost[index], log_probability, baseline)
    assert torch.equal(loss, cost[index])
    assert within_five_errors(torch.autograd.grad(loss.sum(), many)[0], exact)


def test_a_good_baseline_takes_variance_away():
    def variance(baseline):
        many = torch.zeros(DRAWS, 2, dtype=torch.float64, requires_grad=True)
        weights = many.softmax(-1)
        index = sample_key(weights, torch.Generator().manual_seed(3))
        log_probability = weights.gather(-1, index[:, None])[:, 0].log()
        cost = torch.tensor([10.0, 11.0], dtype=torch.float64)[index]
        score_function_loss(cost, log_probability, baseline).sum().backward()
        return many.grad.var(0).sum().item()

    assert variance(10.5) < variance(0.0) / 100


def test_straight_through_is_one_hot_forward_and_soft_backward():
    scores = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    value = torch.randn(4, dtype=torch.float64)
    hard = straight_through(scores.softmax(-1), torch.Generator().manual_seed(4))
    assert torch.equal(
        hard.detach().sort(-1).values[:, -1].round(decimals=12), torch.ones(5, dtype=torch.float64)
    )
    got = torch.autograd.grad((hard @ value).sum(), scores)[0]
    expected = torch.autograd.grad((scores.softmax(-1) @ value).sum(), scores)[0]
    torch.testing.assert_close(got, expected)


def test_the_largest_gumbel_weight_is_drawn_with_the_softmaxs_probabilities():
    scores = torch.tensor([1.0, 0.0, -1.0, -torch.inf], dtype=torch.float64)
    drawn = gumbel_softmax(scores.expand(DRAWS, 4), 0.1, torch.Generator().manual_seed(5))
    torch.testing.assert_close(drawn.sum(-1), torch.ones(DRAWS, dtype=torch.float64))
    largest = torch.nn.functional.one_hot(drawn.argmax(-1), 4).double()
    assert within_five_errors(largest, scores.softmax(-1))


def test_a_lower_temperature_is_nearer_to_one_hot():
    scores = torch.zeros(1000, 5)
    largest = [
        gumbel_softmax(scores, t, torch.Generator().manual_seed(6)).amax(-1).mean() for t in (2.0, 0.5, 0.05)
    ]
    assert largest[0] < largest[1] < largest[2]
    assert largest[2] > 0.95


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=7))
def test_sparsemax_is_the_nearest_probability_vector(scores):
    got = sparsemax(torch.tensor(scores, dtype=torch.float64)).numpy()
    assert got.min() >= 0
    assert got.sum() == pytest.approx(1)
    nearest = minimize(
        lambda p: ((p - scores) ** 2).sum(),
        np.full(len(scores), 1 / len(scores)),
        bounds=[(0, 1)] * len(scores),
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    ).x
    assert ((got - scores) ** 2).sum() <= ((nearest - scores) ** 2).sum() + 1e-9


def test_sparsemaxs_gradient_is_right_and_any_axis_will_do():
    scores = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sparsemax(x, dim=1), scores)
    torch.testing.assert_close(sparsemax(scores, dim=1), sparsemax(scores.transpose(1, 2)).transpose(1, 2))


def test_sparsemax_attention_hears_nothing_hidden_and_little_that_is_far_off():
    query, key, value = qkv()
    mask = torch.tensor([[True, True, False, True], [True, False, True, True]])
    value = value.requires_grad_()
    out = sparsemax_attention(query, 5 * key, value, mask)
    heard = torch.stack(
        [torch.autograd.grad(out[i].sum(), value, retain_graph=True)[0][:, 0] for i in (0, 1)]
    )
    torch.testing.assert_close(heard.sum(-1), torch.ones(2, dtype=torch.float64))
    assert not heard[~mask].any()
    assert (heard == 0).sum() > (~mask).sum()


def test_a_temperature_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        gumbel_softmax(torch.zeros(1, 2), 0)
