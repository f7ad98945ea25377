"""Level 6: DETR, its matching and its loss against transformers', its average precision by hand."""

import itertools
import math
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import DetrConfig as TheirConfig
from transformers import DetrForObjectDetection, ResNetConfig
from transformers.loss.loss_for_object_detection import HungarianMatcher, generalized_box_iou

from tx_course.detection import (
    LossWeights,
    average_precision,
    corners,
    generalized_iou,
    iou,
    match,
    middles,
    set_loss,
)
from tx_course.detr import AnchoredDetr, Detr, DetrConfig, small_backbone
from tx_course.transformer import PreNorm

CONFIG = DetrConfig(
    classes=5, features=12, d_model=16, heads=4, encoder_layers=2, decoder_layers=3, d_hidden=24, queries=7,
    dropout=0.0,
)  # fmt: skip
SMALL_STEPS = {"atol": 1e-9, "rtol": 1e-9}


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def draw_boxes(*shape, seed=0):
    """Boxes that lie inside the image."""
    low_high = torch.rand(*shape, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    low_high = low_high.sort(dim=-2).values + torch.tensor([[0.0], [0.05]])
    return middles((low_high / 1.05).flatten(-2))


def targets(*counts):
    return [
        (torch.randint(5, (n,), generator=torch.Generator().manual_seed(i)), draw_boxes(n, seed=10 + i))
        for i, n in enumerate(counts)
    ]


@contextmanager
def in_float64():
    """transformers' loss makes its class weights in the default dtype."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


class TheirBackbone(nn.Module):
    """transformers' ResNet, giving the last map alone."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images).feature_maps[-1]


@pytest.fixture(scope="module")
def theirs():
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = TheirConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone,
        d_model=16, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=24, decoder_ffn_dim=24, num_queries=7, num_labels=5, dropout=0.0,
    )  # fmt: skip
    model = DetrForObjectDetection(config).double().eval()
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(model.named_parameters()):
            if "backbone" not in name:
                parameter.copy_(draw(*parameter.shape, seed=100 + seed) * 0.4)
    return model


def attention_pairs(ours, theirs):
    names = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("output", "o_proj"))
    return [(getattr(ours, mine), getattr(theirs, their)) for mine, their in names]


def layer_pairs(ours, theirs):
    pairs = attention_pairs(ours.attention, theirs.self_attn)
    if hasattr(ours, "cross_attention"):
        pairs += attention_pairs(ours.cross_attention, theirs.encoder_attn)
        pairs.append((ours.cross_attention_residual.norm, theirs.encoder_attn_layer_norm))
    return [
        *pairs,
        (ours.attention_residual.norm, theirs.self_attn_layer_norm),
        (ours.feed_forward_residual.norm, theirs.final_layer_norm),
        (ours.feed_forward[0], theirs.mlp.fc1),
        (ours.feed_forward[2], theirs.mlp.fc2),
    ]


def parameter_pairs(ours, theirs):
    """Each parameter of ours, the backbone's aside, and its counterpart in transformers, ours first."""
    transformer = theirs.model
    modules = [
        (ours.project, transformer.input_projection),
        (ours.decoder_norm, transformer.decoder.layernorm),
        (ours.label, theirs.class_labels_classifier),
        (ours.box[0][0], theirs.bbox_predictor.layers[0]),
        (ours.box[0][2], theirs.bbox_predictor.layers[1]),
        (ours.box[2], theirs.bbox_predictor.layers[2]),
    ]
    layers = [*zip(ours.encoder, transformer.encoder.layers, strict=True)]
    layers += [*zip(ours.decoder, transformer.decoder.layers, strict=True)]
    for pair in layers:
        modules += layer_pairs(*pair)
    yield ours.queries, transformer.query_position_embeddings.weight
    for a, b in modules:
        yield a.weight, b.weight
        yield a.bias, b.bias


def copy_of(theirs):
    """Our model with their backbone and weights, and the pairs of parameters."""
    ours = Detr(CONFIG, TheirBackbone(theirs.model.backbone.model)).double().eval()
    pairs = list(parameter_pairs(ours, theirs))
    backbone = len(list(ours.backbone.parameters()))
    assert len(pairs) == len(list(ours.parameters())) - backbone == len(list(theirs.parameters())) - backbone
    with torch.no_grad():
        for a, b in pairs:
            a.copy_(b.view_as(a))
    return ours, pairs


def test_detr_and_its_loss_equal_transformers_in_values_and_gradients(theirs):
    ours, pairs = copy_of(theirs)
    images, wanted = draw(3, 3, 64, 96), targets(3, 1, 7)
    logits, boxes = ours(images)
    loss = set_loss(logits, boxes, wanted)
    labels = [{"class_labels": label, "boxes": box} for label, box in wanted]
    with in_float64():
        expected = theirs(images, labels=labels)
    torch.testing.assert_close(logits, expected.logits, **SMALL_STEPS)
    torch.testing.assert_close(boxes, expected.pred_boxes, **SMALL_STEPS)
    torch.testing.assert_close(loss.label, expected.loss_dict["loss_ce"], **SMALL_STEPS)
    torch.testing.assert_close(loss.box, expected.loss_dict["loss_bbox"], **SMALL_STEPS)
    torch.testing.assert_close(loss.giou, expected.loss_dict["loss_giou"], **SMALL_STEPS)
    torch.testing.assert_close(loss.total, expected.loss, **SMALL_STEPS)
    gradients = torch.autograd.grad(loss.total, [a for a, _ in pairs])
    their_gradients = torch.autograd.grad(expected.loss, [b for _, b in pairs])
    assert max(g.abs().max() for g in gradients) > 1e-3
    for a, b in zip(gradients, their_gradients, strict=True):
        torch.testing.assert_close(a, b.view_as(a), **SMALL_STEPS)


def test_matching_equals_transformers_matcher():
    logits, boxes, wanted = draw(4, 7, 6), draw_boxes(4, 7, seed=1), targets(3, 1, 7, 5)
    matcher = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    labels = [{"class_labels": label, "boxes": box} for label, box in wanted]
    expected = matcher({"logits": logits, "pred_boxes": boxes}, labels)
    for image, (query, which) in enumerate(expected):
        ours = match(logits[image], boxes[image], wanted[image])
        assert torch.equal(ours[0], query) and torch.equal(ours[1], which)


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 1000))
def test_matching_costs_no_more_than_any_other_assignment(objects, spare, seed):
    queries = objects + spare
    logits, boxes = draw(queries, 6, seed=seed), draw_boxes(queries, seed=seed + 1)
    (labels, true) = target = targets(objects)[0]

    def cost(query, which):
        pair = generalized_iou(corners(boxes[query]), corners(true[which]))
        distance = (boxes[query] - true[which]).abs().sum(-1)
        return (-logits.softmax(-1)[query, labels[which]] + 5 * distance - 2 * pair).sum().item()

    best = min(
        cost(list(order), list(range(objects))) for order in itertools.permutations(range(queries), objects)
    )
    query, which = match(logits, boxes, target)
    assert sorted(which.tolist()) == list(range(objects))
    assert len(set(query.tolist())) == objects
    assert math.isclose(cost(query.tolist(), which.tolist()), best, abs_tol=1e-12)


def test_the_loss_does_not_depend_on_the_order_of_queries_or_objects():
    logits, boxes, wanted = draw(2, 7, 6), draw_boxes(2, 7, seed=1), targets(3, 5)
    queries = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    shuffled = [(labels.flip(0), true.flip(0)) for labels, true in wanted]
    expected = set_loss(logits, boxes, wanted).total
    torch.testing.assert_close(set_loss(logits[:, queries], boxes[:, queries], shuffled).total, expected)


def test_an_empty_image_asks_only_for_no_object():
    logits, boxes = draw(1, 7, 6).requires_grad_(), draw_boxes(1, 7).requires_grad_()
    loss = set_loss(logits, boxes, targets(0))
    torch.testing.assert_close(loss.label, -logits.log_softmax(-1)[..., -1].mean())
    loss.total.backward()
    assert torch.equal(boxes.grad, torch.zeros_like(boxes))


def test_no_object_counts_less_by_its_weight():
    logits, boxes, wanted = draw(1, 7, 6), draw_boxes(1, 7), targets(3)
    query, which = match(logits[0], boxes[0], wanted[0])
    share = torch.full((7,), 0.25, dtype=torch.float64)
    share[query] = 1.0
    label = torch.full((7,), 5)
    label[query] = wanted[0][0][which]
    by_query = -logits[0].log_softmax(-1)[torch.arange(7), label]
    loss = set_loss(logits, boxes, wanted, LossWeights(no_object=0.25))
    torch.testing.assert_close(loss.label, (share * by_query).sum() / share.sum())


def test_generalized_iou_equals_transformers():
    a, b = corners(draw_boxes(6)), corners(draw_boxes(4, seed=1))
    torch.testing.assert_close(generalized_iou(a[:, None], b), generalized_box_iou(a, b), **SMALL_STEPS)


@pytest.mark.parametrize(
    "a, b, overlap, generalized",
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1, 1),
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, 1 / 7 - 2 / 9),
        ([0, 0, 4, 4], [1, 1, 3, 3], 1 / 4, 1 / 4),
        ([0, 0, 1, 1], [1, 0, 2, 1], 0, 0),
        ([0, 0, 1, 1], [9, 0, 10, 1], 0, -8 / 10),
        ([0, 0, 1, 1], [3, 3, 4, 4], 0, -14 / 16),
    ],
    ids=["same", "overlapping", "inside", "touching", "apart", "apart on both axes"],
)
def test_iou_of_boxes_worked_by_hand(a, b, overlap, generalized):
    a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    assert iou(a, b).item() == pytest.approx(overlap)
    assert generalized_iou(a, b).item() == pytest.approx(generalized)
    assert generalized_iou(b, a).item() == pytest.approx(generalized)


def test_generalized_iou_has_a_gradient_where_iou_has_none():
    box = torch.tensor([0.0, 0.0, 1.0, 1.0], requires_grad=True)
    far = torch.tensor([3.0, 3.0, 4.0, 4.0])
    assert torch.equal(torch.autograd.grad(iou(box, far), box)[0], torch.zeros(4))
    assert torch.autograd.grad(generalized_iou(box, far), box)[0][2] > 0  # grow towards it


@given(st.integers(0, 1000))
def test_middles_undo_corners(seed):
    boxes = draw_boxes(3, seed=seed)
    torch.testing.assert_close(middles(corners(boxes)), boxes)


def guesses(*rows, classes=2):
    """Logits and boxes of one image from (label, probability, box) rows; the rest goes to "no object"."""
    chance = torch.full((len(rows), classes + 1), 1e-9)
    for row, (label, probability, _) in zip(chance, rows, strict=True):
        row[label], row[-1] = probability, 1 - probability
    return chance.log()[None], torch.tensor([[box for *_, box in rows]])


LEFT, RIGHT = [0.2, 0.5, 0.2, 0.2], [0.8, 0.5, 0.2, 0.2]


@pytest.mark.parametrize(
    "rows, expected",
    [
        ([(0, 0.9, LEFT), (0, 0.8, RIGHT)], 1.0),
        ([(0, 0.9, LEFT), (0, 0.8, LEFT)], 0.5),
        ([(0, 0.9, LEFT), (0, 0.8, LEFT), (0, 0.7, RIGHT)], 0.5 + 0.5 * 2 / 3),
        ([(1, 0.9, LEFT), (0, 0.8, RIGHT)], 0.5),
        ([(0, 0.9, [0.5, 0.9, 0.1, 0.1])], 0.0),
    ],
    ids=["both found", "a duplicate", "a duplicate before the second", "a wrong label", "elsewhere"],
)
def test_average_precision_worked_by_hand(rows, expected):
    truth = [(torch.tensor([0, 0]), torch.tensor([LEFT, RIGHT]))]
    assert average_precision(*guesses(*rows), truth) == pytest.approx(expected)


def test_average_precision_is_stricter_with_a_higher_threshold():
    shifted = [0.25, 0.5, 0.2, 0.2]  # IoU 0.6
    truth = [(torch.tensor([0]), torch.tensor([LEFT]))]
    assert average_precision(*guesses((0, 0.9, shifted)), truth, threshold=0.5) == 1.0
    assert average_precision(*guesses((0, 0.9, shifted)), truth, threshold=0.75) == 0.0


@pytest.mark.parametrize("kind", [Detr, AnchoredDetr])
def test_the_image_may_have_any_size_and_queries_any_order(kind):
    torch.manual_seed(0)
    model = kind(DetrConfig.small(classes=3), small_backbone()).double().eval()
    images = draw(2, 1, 40, 72)
    logits, boxes = model(images)
    assert logits.shape == (2, 6, 4) and boxes.shape == (2, 6, 4)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.queries.copy_(model.queries[order])
        if kind is AnchoredDetr:
            model.anchors.copy_(model.anchors[order])
    torch.testing.assert_close(model(images)[0], logits[:, order], **SMALL_STEPS)
    torch.testing.assert_close(model(images)[1], boxes[:, order], **SMALL_STEPS)


def test_an_anchored_query_with_its_anchor_in_the_middle_is_the_papers():
    torch.manual_seed(0)
    config = DetrConfig(**{**vars(CONFIG), "residual": PreNorm})
    anchored = AnchoredDetr(config, nn.Identity()).double()
    plain = Detr(config, nn.Identity()).double()
    with torch.no_grad():
        anchored.anchors.zero_()
    plain.load_state_dict({k: v for k, v in anchored.state_dict().items() if k != "anchors"})
    cells = draw(2, 12, 4, 5)
    torch.testing.assert_close(anchored(cells), plain(cells), **SMALL_STEPS)


def test_more_objects_than_queries_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="at most 7 objects, one per query, got 8"):
        match(draw(7, 6), draw_boxes(7), targets(8)[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_numbers():
    torch.manual_seed(0)
    model = AnchoredDetr(DetrConfig.small(classes=5), small_backbone()).double().eval()
    images, wanted = draw(2, 1, 64, 64), targets(3, 4)
    expected = set_loss(*model(images), wanted)
    model = model.cuda()
    on_gpu = [(labels.cuda(), boxes.cuda()) for labels, boxes in wanted]
    logits, boxes = model(images.cuda())
    loss = set_loss(logits, boxes, on_gpu)
    torch.testing.assert_close(loss.total.cpu(), expected.total, atol=1e-8, rtol=1e-8)
    assert 0 <= average_precision(logits, boxes, on_gpu) <= 1
