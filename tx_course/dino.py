"""DINO: learning to see without labels by agreeing with a slower self (level 8; Caron et al. 2021).

Axes: b images, v views of each image, K outputs of the head (not classes: nobody names them).

A student and its teacher see different crops of one image, and the student learns to say what the teacher
says. The teacher is not trained: it is a moving average of students. Alone, that collapses: one output wins
for every image, or all outputs stay equal. Centring prevents the first and invites the second; sharpening
does the reverse; together they hold.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DinoLoss(nn.Module):
    """Cross-entropy between what teacher and student say of different views (Caron et al. 2021, eq. 3).

    ``outputs`` is K. The teacher's scores are centred by a running mean of their own (kept at ``momentum``)
    and sharpened by ``teacher_temperature``; the student's are divided by ``student_temperature``.
    ``momentum=1`` never moves the centre from 0, which is no centring.

    >>> loss = DinoLoss(outputs=4)
    >>> same = torch.zeros(2, 3, 4)  # two views of three images, nothing preferred: log 4 nats
    >>> round(loss(same, same).item(), 4)
    1.3863
    """

    def __init__(
        self,
        outputs: int,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        momentum: float = 0.9,
    ):
        super().__init__()
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.momentum = momentum
        self.register_buffer("center", torch.zeros(outputs))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss in nats of ``student`` (v, b, K) against ``teacher`` (u, b, K), a scalar.

        The teacher's u views are the student's first u; a view is never compared with itself. No gradient
        reaches the teacher. In training mode the centre then moves towards the teacher's mean.
        Raises ValueError if there is no pair of different views.
        """
        if len(student) < 2:
            raise ValueError(f"expected at least two views for the student, got {len(student)}")
        target = self.teach(teacher)  # (u, b, K)
        log_said = (student / self.student_temperature).log_softmax(dim=-1)
        loss = -torch.einsum("ubk,vbk->uv", target, log_said) / student.size(1)  # (u, v), nats
        different = ~torch.eye(*loss.shape, dtype=torch.bool, device=loss.device)
        if self.training:
            self._move_center(teacher.detach())
        return loss[different].mean()

    def teach(self, teacher: Tensor) -> Tensor:
        """Return the teacher's probabilities (…, K): centred, sharpened, detached."""
        return ((teacher.detach() - self.center) / self.teacher_temperature).softmax(dim=-1)

    def _move_center(self, teacher: Tensor) -> None:
        self.center.lerp_(teacher.mean(dim=(0, 1)), 1 - self.momentum)


class DinoHead(nn.Module):
    """Three layers, then cosines with K learned directions (Caron et al. 2021, 3.1).

    >>> DinoHead(d_model=8, outputs=16, d_hidden=32, bottleneck=4)(torch.randn(3, 8)).shape
    torch.Size([3, 16])
    """

    def __init__(self, d_model: int, outputs: int, d_hidden: int = 2048, bottleneck: int = 256):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(d_model, d_hidden),
            nn.GELU(),
            nn.Linear(d_hidden, d_hidden),
            nn.GELU(),
            nn.Linear(d_hidden, bottleneck),
        )
        self.directions = nn.Parameter(torch.randn(outputs, bottleneck))

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (…, K), each a cosine from −1 to 1, of the features ``x`` (…, d_model)."""
        return F.linear(F.normalize(self.mlp(x), dim=-1), F.normalize(self.directions, dim=-1))


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move the teacher's parameters towards the student's: θ_t ← momentum · θ_t + (1 − momentum) · θ_s.

    Buffers are copied. Source: Caron et al. 2021, 3.1.
    Raises ValueError if ``momentum`` is not between 0 and 1.

    >>> teacher, student = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> _ = nn.init.zeros_(teacher.weight), nn.init.ones_(student.weight)
    >>> ema_update(teacher, student, momentum=0.75)
    >>> teacher.weight.item()
    0.25
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"expected a momentum between 0 (copy) and 1 (never move), got {momentum}")
    for ours, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        ours.lerp_(theirs, 1 - momentum)
    for ours, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
        ours.copy_(theirs)


def teacher_momentum(fraction: float, start: float = 0.996) -> float:
    """Return the teacher's momentum when ``fraction`` of training is done: ``start`` up to 1, by a cosine.

    A teacher that is nearly still at the end averages many students (Caron et al. 2021, 3.1).

    >>> teacher_momentum(0.0), teacher_momentum(1.0)
    (0.996, 1.0)
    """
    return 1 - (1 - start) * (1 + math.cos(math.pi * fraction)) / 2


def multi_crop(
    images: Tensor,
    size: int,
    scales: Sequence[tuple[float, float]],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cut one random square out of each image for each view, and resize it: (v, b, c, ``size``, ``size``).

    ``images`` (b, c, height, width). ``scales`` gives for each view the range of the crop's share of the
    shorter side: (0.7, 1) for a global view, (0.3, 0.6) for a local one. Half of the crops are mirrored. Call
    it once per output size. Source: Caron et al. 2021, 3.1 (there, shares are of the area).
    Raises ValueError if a range does not lie within (0, 1].

    >>> multi_crop(torch.rand(5, 1, 28, 28), size=16, scales=[(0.7, 1.0), (0.3, 0.6)]).shape
    torch.Size([2, 5, 1, 16, 16])
    """
    return torch.stack([_random_crops(images, size, low, high, generator) for low, high in scales])


def _random_crops(
    images: Tensor, size: int, low: float, high: float, generator: torch.Generator | None
) -> Tensor:
    """Return one view of each image. The sampling grid is in units in which an image spans −1 to 1."""
    if not 0 < low <= high <= 1:
        raise ValueError(f"expected a range of shares within (0, 1], got ({low}, {high})")
    batch, _, height, width = images.shape
    draw = torch.rand(4, batch, generator=generator).to(images)
    share = low + (high - low) * draw[0]
    side = share * min(height, width)  # pixels
    half = torch.stack([side / width, side / height], dim=-1)  # (b, 2): half the crop, x and y
    center = (2 * draw[1:3].T - 1) * (1 - half)  # anywhere such that the crop stays inside
    mirror = torch.where(draw[3] < 0.5, -1.0, 1.0)
    scale = torch.diag_embed(torch.stack([half[:, 0] * mirror, half[:, 1]], dim=-1))  # (b, 2, 2)
    theta = torch.cat([scale, center[:, :, None]], dim=-1)  # (b, 2, 3)
    grid = F.affine_grid(theta, [batch, images.size(1), size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
