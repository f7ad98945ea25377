"""Examine an answer: compare it with the reference on random inputs, and say what went wrong."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from autograder.compare import count_numbers, show
from autograder.diagnose import diagnose
from autograder.exercise import Exercise, Group
from autograder.probe import ENDINGS, Probe, draw, parameter_names, probe
from autograder.target import Status, Target
from autograder.verdict import GroupResult, Verdict


def examine(exercise: Exercise, target: Target, seed: int, rounds: int) -> Verdict:
    """Call ``target`` on ``rounds`` random inputs of each group of ``exercise`` and return the verdict.

    The inputs follow from ``seed``. A call that finds no answer ends its group. A call that runs out of time
    or kills its process ends the exercise, so that it is paid for once. What ``target`` returns is taken as
    data.
    """
    with _one_thread():
        probes = _try(exercise, target, seed, rounds)
        results = tuple(_result(exercise, group, probes) for group in exercise.groups)
        mistake, diagnosis = diagnose(exercise, probes)
    return Verdict(exercise.name, results, diagnosis, mistake)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: on inputs this small, waking a second takes 100 times as long as the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _try(exercise: Exercise, target: Target, seed: int, rounds: int) -> list[Probe]:
    probes: list[Probe] = []
    for group in exercise.groups:
        for number in range(rounds):
            probes.append(probe(exercise, group, target, draw(group, seed, number)))
            if probes[-1].status in ENDINGS:
                break
        if probes[-1].status in ENDINGS and probes[-1].status is not Status.MISSING:
            break
    return probes


def _result(exercise: Exercise, group: Group, probes: list[Probe]) -> GroupResult:
    own = [probe for probe in probes if probe.group is group]
    failed = [probe for probe in own if probe.problem]
    if not own:  # an earlier group ended the exercise
        ending = probes[-1]
        return GroupResult(group.name, group.points, ending.status, ending.problem)
    if not failed:
        return GroupResult(group.name, group.points, Status.PASS)
    ending = next((probe for probe in failed if probe.status in ENDINGS), None)
    if ending is not None:
        return GroupResult(group.name, group.points, ending.status, ending.problem)
    smallest = min(failed, key=lambda probe: count_numbers(probe.args))
    example = _example(exercise, smallest)
    return GroupResult(group.name, group.points, Status.WRONG, smallest.problem, example)


def _example(exercise: Exercise, probe: Probe) -> str:
    named = [*zip(parameter_names(exercise), probe.args, strict=False), ("expected", probe.expected.value)]
    if probe.actual.status is None:
        named.append(("yours", probe.actual.value))
    return "\n".join(row for name, value in named for row in _rows(name, value))


def _rows(name: str, value: Any) -> list[str]:
    if isinstance(value, tuple):
        return [row for number, item in enumerate(value) for row in _rows(f"{name}[{number}]", item)]
    shape = f" {tuple(value.shape)}" if isinstance(value, torch.Tensor) and value.dim() else ""
    head = f"{name}{shape} = "
    return [head + show(value).replace("\n", "\n" + " " * len(head))]
