"""The experiment of level 5: the pictures ask what they say they ask, and no network gets more parameters."""

import pytest
import torch
from torch.nn import functional as F

from tx_course.experiments.non_local import CONTEXTS, TASKS, look_up, network, score
from tx_course.experiments.scenes import two_far_apart, two_pairs
from tx_course.non_local import effective_field, receptive_field


def draw(task, count=200, seed=0, test=False):
    return task(count, torch.Generator().manual_seed(seed), test)


def middles(garment, m):
    """The mean row and column, in cells, of each garment's cells."""
    place = torch.stack(torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij"))
    inside = F.one_hot(garment + 1, m + 1)[..., 1:].float()  # (b, 12, 12, m)
    return torch.einsum("bijm,aij->bma", inside, place) / inside.sum((1, 2))[..., None]


@pytest.mark.parametrize("task, m", [(two_far_apart, 2), (two_pairs, 4)])
def test_every_garment_is_there_and_is_asked(task, m):
    scenes = draw(task)
    cells = F.one_hot(scenes.garment + 1, m + 1)[..., 1:].sum((1, 2))
    assert cells.min() >= 4
    assert torch.equal(scenes.answer == -100, scenes.garment == -1)
    for garment in range(m):
        asked = scenes.garment == garment
        answer = scenes.answers[:, garment, None, None].expand_as(asked)
        assert torch.equal(scenes.answer[asked], answer[asked])


def test_two_garments_are_farther_apart_than_the_field_of_the_convolutions():
    place = middles(draw(two_far_apart).garment, 2)
    assert ((place[:, 0] - place[:, 1]).abs().amax(-1) * 4 > receptive_field([3] * 4, [2, 2, 1, 1])).all()


def test_partners_name_each_others_colour():
    scenes = draw(two_pairs)
    colour_at = scenes.images[:, :, 2::4, 2::4]  # (b, 3, 12, 12)
    inside = F.one_hot(scenes.garment + 1)[..., 1:].float()
    colour = torch.einsum("bcij,bijm->bmc", colour_at, inside).argmax(-1)
    assert torch.equal(scenes.answers, colour[:, [1, 0, 3, 2]])


def test_pictures_repeat_with_the_seed_and_test_garments_are_others():
    assert torch.equal(draw(two_pairs).images, draw(two_pairs).images)
    assert not torch.equal(draw(two_pairs).images, draw(two_pairs, seed=1).images)
    train, test = draw(two_far_apart, 50), draw(two_far_apart, 50, test=True)
    assert torch.equal(train.answers, test.answers)
    assert not torch.equal(train.images.amax((1, 2, 3)), test.images.amax((1, 2, 3)))


def test_all_networks_have_about_as_many_parameters():
    for _, channels, answers in TASKS.values():
        sizes = [sum(p.numel() for p in network(c, channels, answers).parameters()) for c in CONTEXTS]
        assert max(sizes) < 1.05 * min(sizes)


@pytest.mark.parametrize("context", CONTEXTS)
def test_only_the_plain_network_cannot_see_the_whole_picture(context):
    torch.manual_seed(0)
    model = network(context, 3, 3).double()
    for parameter in model.parameters():  # zero layers would hide what they see
        torch.nn.init.normal_(parameter, std=0.3)
    seen = effective_field(model.eval(), torch.rand(4, 3, 48, 48, dtype=torch.float64)) > 0
    if context == "nothing":
        assert seen.any(0).sum() <= 23 and seen.any(1).sum() <= 23
    else:
        assert seen.any(0).sum() > 45 and seen.any(1).sum() > 45


def test_score_counts_garments_not_cells():
    scenes = draw(two_far_apart, 20)
    right = F.one_hot(scenes.answer.clamp(min=0), 4).movedim(-1, 1).double()
    model = torch.nn.Identity()
    scenes = type(scenes)(right, scenes.garment, scenes.answers)
    assert score(model, scenes) == 1.0
    first_only = right * (scenes.garment == 0)[:, None]
    half = score(model, type(scenes)(first_only, scenes.garment, scenes.answers))
    guessed = (scenes.answers[:, 1] == 0).double().mean().item()  # all-zero logits say 0
    assert half == pytest.approx((1 + guessed) / 2)


def test_training_is_the_same_with_the_same_seed():
    first, again = (look_up("two garments", "embedded Gaussian", steps=3, seed=1) for _ in range(2))
    for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
