"""The training loop: it learns, it repeats itself, and it leaves nothing behind."""

import pytest
import torch
from torch import nn

from tx_course.train import cosine, fit, sampler

X = torch.linspace(-1, 1, 32)[:, None]
Y = 3 * X + 1


def squared_error(model, batch):
    x, y = batch
    return (model(x) - y).square().mean()


def line():
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))


def test_the_same_seed_gives_the_same_weights_whatever_ran_before():
    first, second = line(), line()
    history = fit(first, sampler(X, Y, size=8), squared_error, 20, seed=3)
    torch.rand(5)
    assert fit(second, sampler(X, Y, size=8), squared_error, 20, seed=3) == history
    for ours, again in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, again)


def test_another_seed_gives_another_history():
    histories = [fit(line(), sampler(X, Y, size=8), squared_error, 5, seed=seed) for seed in (0, 1)]
    assert histories[0] != histories[1]


def test_the_callers_random_state_is_left_as_it_was():
    model, before = line(), torch.get_rng_state()
    fit(model, sampler(X, Y, size=8), squared_error, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_step_equals_adamw_by_hand():
    ours, theirs = line()[3], line()[3]
    batch = (torch.ones(4, 16), torch.ones(4, 1))
    fit(ours, lambda _: batch, squared_error, 4, learning_rate=0.1, weight_decay=0.3, clip=0.5)
    optimizer = torch.optim.AdamW(theirs.parameters(), 0.1, weight_decay=0.3)
    for _ in range(4):
        optimizer.zero_grad()
        squared_error(theirs, batch).backward()
        norm = torch.cat([p.grad.flatten() for p in theirs.parameters()]).norm()
        for p in theirs.parameters():
            p.grad *= (0.5 / (norm + 1e-6)).clamp(max=1)
        optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_the_schedule_sees_the_middle_of_each_step_and_scales_the_rate():
    seen = []
    model = line()
    before = [p.clone() for p in model.parameters()]
    fit(model, sampler(X, Y, size=8), squared_error, 4, schedule=lambda done: seen.append(done) or 0.0)
    assert seen == [0.125, 0.375, 0.625, 0.875]
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_frozen_parameters_stay_and_the_rest_learns():
    model = line()
    model[0].requires_grad_(False)
    frozen, head = model[0].weight.clone(), model[3].weight.clone()
    fit(model, sampler(X, Y, size=8), squared_error, 3)
    assert torch.equal(model[0].weight, frozen)
    assert not torch.equal(model[3].weight, head)


def test_the_model_trains_in_training_mode_and_is_left_in_evaluation_mode():
    modes = []
    model = line().eval()
    fit(model, sampler(X, Y, size=8), lambda m, b: modes.append(m.training) or squared_error(m, b), 2)
    assert modes == [True, True]
    assert not model.training


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match="lower learning rate"):
        fit(nn.Linear(1, 1), sampler(X, Y / 0, size=8), squared_error, 3)


def test_progress_draws_a_bar_only_when_asked(capsys):
    fit(line(), sampler(X, Y, size=8), squared_error, 2)
    assert capsys.readouterr().out == ""
    fit(line(), sampler(X, Y, size=8), squared_error, 2, progress=True)
    assert "training" in capsys.readouterr().out


def test_cosine_rises_to_one_then_falls_to_zero():
    schedule = cosine(warmup=0.25)
    rates = [schedule(i / 100) for i in range(101)]
    assert rates[0] == 0 and rates[25] == 1 and rates[100] == 0
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert cosine()(0.0) == 1


@pytest.mark.parametrize("warmup", [-0.1, 1.0])
def test_cosine_refuses_a_warmup_that_is_no_fraction(warmup):
    with pytest.raises(ValueError, match="fraction"):
        cosine(warmup)


def test_sampler_draws_every_row_about_equally_often_and_keeps_rows_together():
    draw = sampler(torch.arange(10), torch.arange(10) * 2, size=10_000)
    number, double = draw(torch.Generator().manual_seed(0))
    assert torch.equal(number * 2, double)
    assert number.bincount(minlength=10).min() > 850  # 1000 expected, 30 is one standard deviation


def test_sampler_refuses_tensors_that_do_not_align():
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        sampler(torch.zeros(3), torch.zeros(4), size=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_runs_where_the_parameters_are():
    model = line().cuda()
    history = fit(model, sampler(X, Y, size=32, device="cuda"), squared_error, 200, learning_rate=1e-2)
    assert history[-1] < history[0] / 4
