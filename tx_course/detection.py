"""Detection as a set (level 6): boxes, the matching, the loss of DETR (Carion et al. 2020), and its score.

Axes: b batch, q predictions of an image, n true objects of an image. Boxes are (x, y, width, height) of their
middle and their sides, as fractions of the image, except where corners (left, top, right, bottom) are named.
The last class means "no object".
"""

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

Target = tuple[Tensor, Tensor]
"""The objects of one image: labels (n), int64, and boxes (n, 4)."""


def corners(boxes: Tensor) -> Tensor:
    """Turn boxes (…, 4) of middles and sides into left, top, right, bottom.

    >>> corners(torch.tensor([0.5, 0.5, 1.0, 0.5])).tolist()
    [0.0, 0.25, 1.0, 0.75]
    """
    middle, side = boxes.split(2, dim=-1)
    return torch.cat([middle - side / 2, middle + side / 2], dim=-1)


def middles(boxes: Tensor) -> Tensor:
    """Turn boxes (…, 4) of left, top, right, bottom into middles and sides: the inverse of ``corners``.

    >>> middles(torch.tensor([0.0, 0.25, 1.0, 0.75])).tolist()
    [0.5, 0.5, 1.0, 0.5]
    """
    low, high = boxes.split(2, dim=-1)
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def _areas(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the areas of intersection, union and hull (the smallest box around both) of boxes by corners."""
    (a_low, a_high), (b_low, b_high) = a.split(2, dim=-1), b.split(2, dim=-1)
    both = (torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp(min=0).prod(-1)
    union = (a_high - a_low).prod(-1) + (b_high - b_low).prod(-1) - both
    hull = (torch.maximum(a_high, b_high) - torch.minimum(a_low, b_low)).prod(-1)
    return both, union, hull


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return intersection over union, from 0 (apart) to 1 (the same), of boxes by corners.

    ``a`` and ``b`` (…, 4) broadcast; ``a[:, None]`` and ``b`` give all pairs.

    >>> iou(torch.tensor([0.0, 0.0, 2.0, 1.0]), torch.tensor([1.0, 0.0, 4.0, 1.0])).item()
    0.25
    """
    both, union, _ = _areas(a, b)
    return both / union


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return IoU minus the share of the hull that neither box covers, from −1 (far apart) to 1 (the same).

    IoU is 0 for all boxes that do not touch, and has no gradient there; this one still says which way to go.
    Shapes as in ``iou``, by corners. Source: Rezatofighi et al. 2019.

    >>> generalized_iou(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([3.0, 0.0, 4.0, 1.0])).item()
    -0.5
    """
    both, union, hull = _areas(a, b)
    return both / union - (hull - union) / hull


@dataclass(frozen=True)
class LossWeights:
    """How much each part counts, in matching and in the loss; ``no_object`` is the last class's weight in the
    cross-entropy. The defaults are the paper's (Carion et al. 2020).

    >>> LossWeights().box
    5.0
    """

    label: float = 1.0
    box: float = 5.0
    giou: float = 2.0
    no_object: float = 0.1


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, target: Target, weights: LossWeights = LossWeights()) -> Target:
    """Pair each true object of one image with a query of its own, at the least total cost.

    ``logits`` (q, classes + 1) and ``boxes`` (q, 4) are the predictions. A pair costs minus the probability
    of the true label, plus the L1 distance of the boxes, minus their generalised IoU, each times its weight
    (Carion et al. 2020, eq. 1). The result is a pair of indices (n): queries, and their objects.
    Raises ValueError if there are more objects than queries.

    >>> boxes = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]])
    >>> query, object = match(torch.zeros(2, 3), boxes, (torch.tensor([1]), boxes[1:]))
    >>> query.tolist(), object.tolist()
    ([1], [0])
    """
    labels, true_boxes = target
    if len(labels) > len(logits):
        raise ValueError(f"expected at most {len(logits)} objects, one per query, got {len(labels)}")
    cost = (
        -weights.label * logits.softmax(-1)[:, labels]
        + weights.box * torch.cdist(boxes, true_boxes, p=1)
        - weights.giou * generalized_iou(corners(boxes)[:, None], corners(true_boxes))
    )  # (q, n)
    query, which = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(query, device=logits.device), torch.as_tensor(which, device=logits.device)


@dataclass(frozen=True)
class SetLoss:
    """The parts of the loss of a set of predictions, scalars, and their weighted ``total``."""

    label: Tensor
    box: Tensor
    giou: Tensor
    total: Tensor


def set_loss(
    logits: Tensor, boxes: Tensor, targets: list[Target], weights: LossWeights = LossWeights()
) -> SetLoss:
    """Score predictions against sets of objects, whatever the order of either (Carion et al. 2020, eq. 2).

    ``logits`` (b, q, classes + 1), ``boxes`` (b, q, 4), one target per image. After ``match``, every query
    answers for its label, those without an object for "no object" at a lower weight, since they are many;
    matched ones also for their box: L1 and 1 − generalised IoU, each the mean over objects.

    >>> boxes = torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]]])
    >>> loss = set_loss(torch.zeros(1, 2, 3), boxes, [(torch.tensor([1]), boxes[0, 1:])])
    >>> loss.box.item(), round(loss.label.exp().item(), 3)
    (0.0, 3.0)
    """
    pairs = [match(*image, weights) for image in zip(logits, boxes, targets, strict=True)]
    wanted = logits.new_full(logits.shape[:2], logits.size(-1) - 1, dtype=torch.int64)  # (b, q)
    for row, (query, which), (labels, _) in zip(wanted, pairs, targets, strict=True):
        row[query] = labels[which]
    importance = logits.new_ones(logits.size(-1))
    importance[-1] = weights.no_object
    label = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), importance)

    mine = torch.cat([image[query] for image, (query, _) in zip(boxes, pairs, strict=True)])
    true = torch.cat([true[which] for (_, which), (_, true) in zip(pairs, targets, strict=True)])
    count = max(len(true), 1)
    box = (mine - true).abs().sum() / count
    giou = (1 - generalized_iou(corners(mine), corners(true))).sum() / count
    return SetLoss(label, box, giou, weights.label * label + weights.box * box + weights.giou * giou)


def average_precision(logits: Tensor, boxes: Tensor, targets: list[Target], threshold: float = 0.5) -> float:
    """Return the mean over classes of the area under precision against recall, from 0 to 1.

    Every query guesses its likeliest class that is an object. Guesses of one class, surest first, are right
    if they overlap a true object of that class, not yet taken, by an IoU of ``threshold`` or more. Nothing
    removes duplicates: a second guess of one object is wrong. Precision is the best at that recall or beyond.
    Shapes as in ``set_loss``.

    >>> boxes = torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]]])
    >>> logits = torch.tensor([[[0.0, 1.0, 9.0], [0.0, 5.0, 0.0]]])
    >>> average_precision(logits, boxes, [(torch.tensor([1]), boxes[0, 1:])])
    1.0
    """
    score, label = logits.softmax(-1)[..., :-1].max(-1)  # (b, q)
    right = torch.stack(
        [_right(*image, threshold) for image in zip(score, label, boxes, targets, strict=True)]
    )
    truth = torch.cat([labels for labels, _ in targets])
    areas = []
    for kind in truth.unique():
        order = score[label == kind].argsort(descending=True)
        found = right[label == kind][order].cumsum(0)
        recall = torch.cat([found.new_zeros(1), found]) / (truth == kind).sum()
        precision = found / torch.arange(1, len(found) + 1, device=found.device)
        best = precision.flip(0).cummax(0).values.flip(0) if len(found) else precision
        areas.append((recall.diff() * best).sum().item())
    return sum(areas) / len(areas)


def _right(score: Tensor, label: Tensor, boxes: Tensor, target: Target, threshold: float) -> Tensor:
    """Return which guesses (q) of one image hit an object that no surer guess has hit."""
    true_labels, true_boxes = target
    overlap = iou(corners(boxes)[:, None], corners(true_boxes))  # (q, n)
    overlap = overlap.masked_fill(label[:, None] != true_labels, -1.0)
    right = torch.zeros_like(label)
    if len(true_labels) == 0:
        return right
    for query in score.argsort(descending=True).tolist():
        best, which = overlap[query].max(0)
        if best >= threshold:
            right[query] = 1
            overlap[:, which] = -1.0  # taken
    return right
