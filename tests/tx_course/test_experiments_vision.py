"""The experiments of level 6: pictures whose boxes are true, and fair comparisons."""

import pytest
import torch

from tx_course.detection import corners, iou
from tx_course.experiments.crowds import KINDS, SIDE, draw_crowds
from tx_course.experiments.vision import (
    MODELS,
    cell_labels,
    detect_garments,
    position_similarity,
    shuffle_patches,
    sort_garments,
)


def draw(count=200, seed=0, test=False):
    return draw_crowds(count, torch.Generator().manual_seed(seed), test)


def test_boxes_are_tight_around_what_is_bright():
    images, targets = draw()
    alone = [i for i, (labels, _) in enumerate(targets) if len(labels) == 1]
    assert len(alone) > 20
    for i in alone:
        rows, columns = (((images[i, 0] + 0.5) / 2) > 0.1).nonzero().T
        edges = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        torch.testing.assert_close(corners(targets[i][1][0]) * SIDE, edges.float(), atol=1e-3, rtol=0)


def test_pictures_hold_one_to_four_garments_that_hardly_overlap():
    _, targets = draw()
    assert {len(labels) for labels, _ in targets} == {1, 2, 3, 4}
    for labels, boxes in targets:
        assert (labels < len(KINDS)).all()
        assert (corners(boxes) >= 0).all() and (corners(boxes) <= 1).all()
        overlap = iou(corners(boxes)[:, None], corners(boxes)).fill_diagonal_(0)
        assert overlap.max() < 0.15


def test_pictures_repeat_with_the_seed():
    assert torch.equal(draw(20)[0], draw(20)[0])
    assert not torch.equal(draw(20)[0], draw(20, seed=1)[0])
    assert not torch.equal(draw(20)[0], draw(20, test=True)[0])


def test_cell_labels_name_the_garment_over_the_middle_of_a_cell():
    labels = cell_labels([(torch.tensor([3]), torch.tensor([[0.5, 0.25, 0.5, 0.5]]))], cells=4)
    nothing = len(KINDS)
    assert labels[0].tolist() == [[nothing, 3, 3, nothing]] * 2 + [[nothing] * 4] * 2


def test_vit_and_cnn_have_about_as_many_parameters():
    sizes = [sum(p.numel() for p in build().parameters() if p.requires_grad) for build in MODELS.values()]
    assert max(sizes) < 1.15 * min(sizes)


def test_shuffling_moves_patches_and_loses_none():
    images = torch.arange(2 * 28 * 28.0).view(2, 1, 28, 28)
    shuffled = shuffle_patches(images)
    assert not torch.equal(shuffled, images)
    assert torch.equal(shuffled.flatten(1).sort().values, images.flatten(1).sort().values)


def test_a_vit_without_positions_does_not_notice_the_shuffle():
    result = sort_garments("ViT without positions", images=100, steps=3)
    assert result.accuracy == result.shuffled
    assert torch.equal(result.model.positions, torch.zeros_like(result.model.positions))


def test_positions_are_most_like_themselves():
    similarity = position_similarity(sort_garments("ViT", images=100, steps=1).model)
    assert similarity.shape == (49, 49)
    assert torch.equal(similarity.argmax(1), torch.arange(49))


@pytest.mark.parametrize(
    "train",
    [lambda: sort_garments("CNN", 100, steps=3, seed=1), lambda: detect_garments(2, pretraining=2, seed=1)],
    ids=["classifier", "detector"],
)
def test_training_is_the_same_with_the_same_seed(train):
    first, again = train(), train()
    for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
