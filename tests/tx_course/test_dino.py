"""DINO's loss is the paper's formula, its teacher learns from nobody, and both of its brakes are needed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import nn

from tx_course.dino import DinoHead, DinoLoss, ema_update, multi_crop, teacher_momentum


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_loss_and_the_centre_are_the_papers_worked_out_by_hand():
    student, teacher = draw(5, 3, 7), draw(2, 3, 7, seed=1)
    loss = DinoLoss(7, student_temperature=0.2, teacher_temperature=0.05, momentum=0.8).double()
    center = np.zeros(7)
    for _ in range(3):
        s, t = student.numpy(), teacher.numpy()
        terms = []
        for u in range(2):
            for v in range(5):
                if u != v:
                    target = np.exp(log_softmax((t[u] - center) / 0.05, axis=-1))
                    terms.append(-(target * log_softmax(s[v] / 0.2, axis=-1)).sum(-1).mean())
        assert loss(student, teacher).item() == pytest.approx(np.mean(terms))
        center = 0.8 * center + 0.2 * t.mean((0, 1))
        np.testing.assert_allclose(loss.center.numpy(), center, atol=1e-12)


def test_no_gradient_reaches_the_teacher():
    student, teacher = draw(3, 2, 4).requires_grad_(), draw(2, 2, 4, seed=1).requires_grad_()
    DinoLoss(4).double()(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_a_view_is_never_compared_with_itself():
    student, teacher = draw(2, 3, 4).requires_grad_(), draw(1, 3, 4, seed=1)
    DinoLoss(4).double()(student, teacher).backward()
    assert not student.grad[0].any()
    assert student.grad[1].any()
    with pytest.raises(ValueError, match="got 1"):
        DinoLoss(4)(student[:1], teacher)


def test_the_centre_stands_still_in_evaluation_and_travels_with_the_state():
    loss = DinoLoss(4).double()
    loss(draw(2, 3, 4), draw(2, 3, 4, seed=1))
    moved = loss.center.clone()
    loss.eval()(draw(2, 3, 4), draw(2, 3, 4, seed=2))
    assert moved.any()
    assert torch.equal(loss.center, moved)
    other = DinoLoss(4).double()
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.center, moved)


def test_centring_takes_away_what_the_teacher_says_of_every_image():
    loss, favourite = DinoLoss(4, momentum=0.0).double(), torch.tensor([9.0, 0, 0, 0], dtype=torch.float64)
    teacher = 0.01 * draw(2, 50, 4) + favourite
    loss(teacher, teacher)
    assert loss.teach(teacher).mean((0, 1)).max() < 0.5
    assert DinoLoss(4).double().teach(teacher).mean((0, 1)).max() > 0.99


def test_a_heads_scores_are_cosines():
    head = DinoHead(6, outputs=10, d_hidden=12, bottleneck=4).double()
    x = 100 * draw(3, 5, 6)
    out = head(x)
    assert out.abs().max() <= 1
    with torch.no_grad():
        head.directions.mul_(3)
    torch.testing.assert_close(head(x), out)


@given(st.floats(0, 1))
def test_the_teacher_moves_its_share_of_the_way(momentum):
    torch.manual_seed(0)
    teacher, student = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    for weight in [*teacher.parameters(), *student.parameters()]:
        nn.init.normal_(weight)
    student.running_mean.fill_(5)
    old, theirs = teacher.weight.clone(), student.weight.clone()
    ema_update(teacher, student, momentum)
    torch.testing.assert_close(teacher.weight, momentum * old + (1 - momentum) * theirs)
    assert torch.equal(student.weight, theirs)
    assert torch.equal(teacher.running_mean, student.running_mean)


def test_momentums_outside_zero_to_one_are_refused():
    with pytest.raises(ValueError, match=r"got 1\.5"):
        ema_update(nn.Linear(1, 1), nn.Linear(1, 1), 1.5)


def test_the_schedule_rises_from_its_start_to_one():
    values = [teacher_momentum(i / 20, start=0.9) for i in range(21)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0.9)
    assert values[10] == pytest.approx(0.95)
    assert values[20] == 1


def test_crops_are_repeatable_and_whole_images_come_back_whole_or_mirrored():
    images = torch.rand(6, 3, 8, 8)
    once, again = (
        multi_crop(images, 5, [(0.5, 1), (0.2, 0.4)], torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(once, again)
    whole = multi_crop(images, 8, [(1, 1)], torch.Generator().manual_seed(2))[0]
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(whole, images, strict=True)]
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(whole, images, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)


@given(st.floats(0.1, 1), st.integers(0, 100))
def test_a_crop_shows_a_square_of_its_share_inside_the_image(share, seed):
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    place = torch.stack([rows, columns])[None]
    crop = multi_crop(place, 21, [(share, share)], torch.Generator().manual_seed(seed))[0, 0]
    assert crop[0].min() >= 0
    assert crop[0].max() <= 39
    assert crop[1].max() <= 59
    spans = (crop.amax((1, 2)) - crop.amin((1, 2))) / 40  # 21 samples at the middles of 21 cells
    expected = torch.tensor(share * 20 / 21)
    assert (spans <= expected + 1e-3).all()
    assert (spans >= expected - 1 / 40).all()  # the border is repeated for half a pixel


def test_shares_outside_the_image_are_refused():
    with pytest.raises(ValueError, match=r"\(0\.5, 1\.5\)"):
        multi_crop(torch.zeros(1, 1, 4, 4), 2, [(0.5, 1.5)])
