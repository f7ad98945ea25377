"""Say what went wrong: recognise a mistake of the catalogue, or at least something that does not hold."""

from collections.abc import Callable

from autograder.compare import explain, same
from autograder.exercise import Exercise
from autograder.local import LocalTarget
from autograder.probe import ENDINGS, Probe, same_gradient
from autograder.target import Answer, Status, Target


def diagnose(exercise: Exercise, probes: list[Probe]) -> tuple[str, str]:
    """Return the name of the mistake recognised, if any, and the sentence that helps."""
    failed = [probe for probe in probes if probe.problem]
    wrong = [probe for probe in failed if probe.status is Status.WRONG]
    if failed and not wrong:
        return "", _waits_for(exercise, failed[0].actual)
    if not failed:
        return "", ""
    # One mistake may explain everything; of two mistakes, one may still explain the first group that fails.
    answered = [probe for probe in probes if probe.status not in ENDINGS]
    first = [probe for probe in answered if probe.group is wrong[0].group]
    for tested in (answered, first):
        for mistake in exercise.mistakes:
            if _explains(LocalTarget(mistake.program), tested, exercise.tolerance):
                return mistake.name, mistake.hint
    return "", " ".join(filter(None, (_broken_property(exercise, wrong), _guess(exercise, wrong))))


def _waits_for(exercise: Exercise, answer: Answer) -> str:
    if answer.status is Status.MISSING and answer.error in exercise.needs:
        return f"This one waits for `{answer.error}`: write that first."
    return ""


def _explains(mistake: Target, probes: list[Probe], tolerance: float) -> bool:
    return all(_agree(mistake.call(p.args, p.group.gradients), p.actual, tolerance) for p in probes)


def _agree(mistake: Answer, actual: Answer, tolerance: float) -> bool:
    if mistake.status is not None or actual.status is not None:
        return _same_error(mistake.error or "", actual.error or "")
    return (
        same(mistake.value, actual.value, tolerance)
        and mistake.changed == tuple(actual.changed)
        and _same_gradients(mistake, actual, tolerance)
    )


def _same_error(first: str, second: str) -> bool:
    """Whether two errors are of one type and, where both have a message, say the same."""
    (kind, _, message), (other_kind, _, other) = (
        error.split("\n")[0].partition(": ") for error in (first, second)
    )
    return bool(kind) and kind == other_kind and (not message or not other or message == other)


def _same_gradients(mistake: Answer, actual: Answer, tolerance: float) -> bool:
    if mistake.gradients is None:  # nobody asked for them
        return True
    pairs = zip(mistake.gradients, actual.gradients, strict=True)
    return all(same_gradient(first, second, tolerance) for first, second in pairs)


def _broken_property(exercise: Exercise, failed: list[Probe]) -> str:
    for rule in exercise.properties:
        for probe in failed:
            if probe.actual.status is None and not _holds(rule.holds, probe):
                return rule.sentence
    return ""


def _holds(rule: Callable[..., bool], probe: Probe) -> bool:
    try:
        return bool(rule(probe.actual.value, *probe.args))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return True  # an answer of the wrong shape or type: nothing can be said about this property


def _guess(exercise: Exercise, failed: list[Probe]) -> str:
    guesses = [
        explain(p.expected.value, p.actual.value, exercise.tolerance)
        for p in failed
        if p.actual.status is None
    ]
    # Only what is true of every failing input is worth saying.
    return guesses[0] if guesses and len(guesses) == len(failed) and len(set(guesses)) == 1 else ""
