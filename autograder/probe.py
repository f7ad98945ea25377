"""One question put to an answer: an input, and what the reference and the answer make of it."""

import inspect
import zlib
from dataclasses import dataclass, replace

import torch

from autograder.compare import Unreadable, difference, plain, same
from autograder.exercise import Exercise, Group
from autograder.local import LocalTarget
from autograder.target import Answer, Status, Target

ENDINGS = {
    Status.MISSING: "not written yet",
    Status.TIMEOUT: "took too long",
    Status.CRASHED: "the process died",
    Status.UNREADABLE: "cannot be read",
}


@dataclass(frozen=True)
class Probe:
    """One input of one group, what the reference made of it, and what the answer made of it."""

    group: Group
    args: tuple
    expected: Answer
    actual: Answer
    problem: str

    @property
    def status(self) -> Status:
        """``PASS``, or what became of the call."""
        return (self.actual.status or Status.WRONG) if self.problem else Status.PASS


def draw(group: Group, seed: int, number: int) -> tuple:
    """Return input ``number`` of ``group`` for ``seed``."""
    own = zlib.crc32(f"{seed}/{group.name}/{number}".encode())
    return group.inputs(torch.Generator().manual_seed(own))


def probe(exercise: Exercise, group: Group, target: Target, args: tuple) -> Probe:
    """Put ``args`` to the reference and to ``target``, and say what is wrong with what comes back."""
    expected = LocalTarget(exercise.reference).call(args, group.gradients)
    if expected.status is not None:
        raise RuntimeError(f"the reference of {exercise.name} failed in {group.name!r}: {expected.error}")
    actual = _read(target.call(args, group.gradients), len(args))
    return Probe(group, args, expected, actual, _problem(exercise, group, expected, actual))


def _read(answer: Answer, arguments: int) -> Answer:
    """Return ``answer`` with a plain value and one gradient, or None, for each of its ``arguments``: a target
    may pass on anything."""
    if answer.status is not None:
        return answer
    try:
        value, gradients = plain(answer.value), plain(answer.gradients)
    except Unreadable as error:
        return Answer(status=Status.WRONG, error=f"TypeError: expected a tensor, got {error}")
    if not (isinstance(gradients, tuple) and len(gradients) == arguments):
        gradients = (None,) * arguments
    gradients = tuple(gradient if isinstance(gradient, torch.Tensor) else None for gradient in gradients)
    return replace(answer, value=value, gradients=gradients)


def parameter_names(exercise: Exercise) -> list[str]:
    """Return the names of the arguments of an exercise's function, in order."""
    return list(inspect.signature(exercise.reference).parameters)


def _problem(exercise: Exercise, group: Group, expected: Answer, actual: Answer) -> str:
    """Say what is wrong with an answer, or return an empty string."""
    if actual.status in ENDINGS:
        return ENDINGS[actual.status]
    if actual.status is not None:
        asked = "(gradients are asked for here, so stay in torch tensors) " if group.gradients else ""
        return f"{asked}raised {actual.error}"
    names = parameter_names(exercise)
    if not same(expected.value, actual.value, exercise.tolerance):
        return difference(expected.value, actual.value, exercise.tolerance)
    if actual.changed:
        changed = ", ".join(f"`{name}`" for i, name in enumerate(names) if i in actual.changed)
        return f"the result is right, but your function changed its input {changed}"
    if group.gradients:
        return _gradient_problem(names, expected, actual, exercise.tolerance)
    return ""


def _gradient_problem(names: list[str], expected: Answer, actual: Answer, tolerance: float) -> str:
    for name, wanted, got in zip(names, expected.gradients, actual.gradients, strict=False):
        if same_gradient(wanted, got, tolerance):
            continue
        if got is None:
            return (
                f"the result is right, but no gradient reaches `{name}`. Stay in torch all the way: "
                "no .detach(), .item(), .numpy() or torch.tensor(...) on the way"
            )
        zero = torch.zeros_like(got) if wanted is None else wanted
        return (
            f"the result is right, but its gradient for `{name}` is not: {difference(zero, got, tolerance)}"
        )
    return ""


def same_gradient(first: torch.Tensor | None, second: torch.Tensor | None, tolerance: float) -> bool:
    """Whether two gradients agree, where None is as good as zeros."""
    if first is None or second is None:
        some = first if second is None else second
        return some is None or not some.any()
    return same(first, second, tolerance)
