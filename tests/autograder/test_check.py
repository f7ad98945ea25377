"""The check itself: it believes nothing it is told, says what is wrong, and says the same every time."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import autograder
from autograder import check, done, progress
from autograder.check import ROUNDS, CheckFailed
from autograder.compare import Unreadable, difference, explain, plain, same
from autograder.examine import examine
from autograder.exercise import Exercise, Group, Mistake, Property
from autograder.exercises import find, load, stems
from autograder.local import LocalTarget
from autograder.target import Answer, Status


def float64(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


DOUBLE = Exercise(
    name="double",
    level="attention",
    title="Twice a vector",
    minutes=1,
    difficulty=1,
    reference=lambda x: 2 * x,
    groups=(
        Group("values", 2, lambda g: (torch.randn(3, generator=g, dtype=torch.float64),)),
        Group("gradients", 1, lambda g: (torch.randn(4, generator=g, dtype=torch.float64),), gradients=True),
    ),
    mistakes=(
        Mistake("squared", lambda x: x**2, "You square."),
        Mistake("index out of range", lambda x: x[9], "You look beyond the end."),
    ),
    properties=(Property("The sign must stay.", lambda y, x: bool((y * x >= 0).all())),),
    needs=("helper",),
)


def judge(program):
    return examine(DOUBLE, LocalTarget(program), 5, ROUNDS)


@pytest.fixture
def kernel(monkeypatch):
    """A kernel in which nothing has been checked."""
    monkeypatch.setattr(sys.modules["autograder.check"], "_checked", {})


# What is believed


class AlwaysEqual:
    def __eq__(self, other):
        return True

    def __array__(self, *args, **kwargs):
        return np.zeros(3)


class Impostor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return True


class LyingFloat(float):
    def __eq__(self, other):
        return True

    __hash__ = float.__hash__


class LyingArray(np.ndarray):
    pass


class Disguised:
    @property
    def __class__(self):
        return torch.Tensor


def tensor_with_a_lying_method(x):
    x = x.clone()
    x.detach = lambda: 2 * x
    x.clone = x.detach
    return x


def structured(x):
    return np.zeros(3, dtype=[("number", "f8")])


LIARS = {
    "an object equal to everything": lambda x: AlwaysEqual(),
    "a tensor subclass": lambda x: (2 * x).as_subclass(Impostor),
    "an array subclass": lambda x: (2 * x.detach().numpy()).view(LyingArray),
    "a float equal to everything": lambda x: LyingFloat(1.0),
    "an object that says it is a tensor": lambda x: Disguised(),
    "a tensor with a method of its own": tensor_with_a_lying_method,
    "an array of objects": lambda x: np.array([AlwaysEqual()] * 3),
    "an array of records": structured,
    "a list of lies": lambda x: [AlwaysEqual()] * 3,
    "a list that holds itself": lambda x: (loop := [], loop.append(loop))[0],
    "the type itself": lambda x: torch.Tensor,
    "a sparse tensor": lambda x: (2 * x.detach()).to_sparse(),
    "a nested tensor": lambda x: torch.nested.nested_tensor([x.detach(), x.detach()[:1]]),
    "a tensor without numbers": lambda x: torch.empty(3, device="meta"),
    "a quantized tensor": lambda x: torch.quantize_per_tensor(x.detach().float(), 0.1, 0, torch.qint8),
    "a tensor too large to copy": lambda x: torch.zeros(1).expand(10**12),
    "an array too large to copy": lambda x: np.broadcast_to(np.zeros(1), (10**12,)),
    "complex numbers": lambda x: 2 * x.detach().to(torch.complex128),
    "a generator": lambda x: (2 * number for number in x),
    "a dictionary": lambda x: {"value": 2 * x},
    "a number of any size": lambda x: 10**400,
}


@pytest.mark.filterwarnings("ignore:.*(nested|quantize)")
@pytest.mark.parametrize("name", LIARS)
def test_objects_that_lie_get_no_points(name):
    assert judge(LIARS[name]).earned == 0


@pytest.mark.filterwarnings("ignore:.*(nested|quantize)")
@pytest.mark.parametrize("name", LIARS)
def test_a_target_that_passes_lies_on_gets_no_points(name):
    class Believer:
        def call(self, args, gradients=False):
            return Answer(value=LIARS[name](*args), gradients=(AlwaysEqual(),))

    assert examine(DOUBLE, Believer(), 5, ROUNDS).earned == 0


def test_numpy_is_accepted_where_no_gradient_is_asked_for():
    verdict = judge(lambda x: 2 * x.detach().numpy())
    assert [group.status for group in verdict.groups] == [Status.PASS, Status.WRONG]
    assert "no gradient reaches `x`" in verdict.groups[1].message


def test_an_error_where_gradients_are_asked_for_says_so():
    assert "stay in torch tensors" in judge(lambda x: 2 * x.numpy()).groups[1].message


def test_plain_keeps_dtype_and_copies():
    array = np.ones(3, dtype=np.float32)
    read = plain((array, np.float64(2), 3, True, "a", None))
    array[0] = 9
    assert [getattr(item, "dtype", item) for item in read] == [
        torch.float32,
        torch.float64,
        torch.int64,
        torch.bool,
        "a",
        None,
    ]
    assert read[0].tolist() == [1, 1, 1]


def test_plain_does_not_read_deep_nests():
    with pytest.raises(Unreadable):
        plain([[[[1.0]]]])


# What is compared


def test_nan_is_wrong_where_a_number_is_expected():
    assert not same(float64(1, 2), float64(1, float("nan")), 1e-8)
    assert "1 of them are NaN" in difference(float64(1, 2), float64(1, float("nan")), 1e-8)


@pytest.mark.parametrize(
    "other", [float64(1, 2).float(), float64(1, 2)[:, None], (float64(1, 2),), "a", None]
)
def test_dtype_shape_and_structure_count(other):
    assert not same(float64(1, 2), other, 1e-8)
    assert difference(float64(1, 2), other, 1e-8).startswith("expected ")


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (lambda x: x.T, "changed places"),
        (lambda x: x * 3, "Every number is 3 times"),
        (lambda x: x + 1, "off by the same 1"),
        (lambda x: x.float(), "as float32"),
        (lambda x: x[None], "axis of length 1"),
        (lambda x: x / 0, "NaN and infinity"),
    ],
)
def test_a_wrong_answer_of_no_catalogue_is_explained(actual, words):
    expected = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    assert words in explain(expected, actual(expected), 1e-8)


def test_the_input_must_stay_as_it_was():
    verdict = judge(lambda x: x.mul_(2))
    assert verdict.earned == 0
    assert "changed its input `x`" in verdict.groups[0].message


@pytest.mark.parametrize("spoil", [list.clear, list.reverse, lambda items: items.__setitem__(0, None)])
def test_a_list_among_the_inputs_must_stay_as_it_was(spoil):
    items = [float64(1), float64(2)]
    assert LocalTarget(lambda items: spoil(items)).call((items,)).changed == (0,)
    assert len(items) == 2


@pytest.mark.parametrize("gradients", [None, (), "2", float64(2, 2, 2, 2), (None, float64(2, 2, 2, 2))])
def test_gradients_that_do_not_come_are_missing(gradients):
    class Forgetful:
        def call(self, args, asked=False):
            return Answer(value=2 * args[0], gradients=gradients)

    assert [group.earned for group in examine(DOUBLE, Forgetful(), 5, ROUNDS).groups] == [2, 0]


def test_an_answer_works_on_copies():
    x = float64(1, 2)
    answer = LocalTarget(lambda x: x.zero_()).call((x,))
    assert answer.changed == (0,)
    assert x.tolist() == [1, 2]


def test_a_wrong_gradient_is_found():
    class Backwards(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            return -2 * grad

    verdict = judge(Backwards.apply)
    assert [group.earned for group in verdict.groups] == [2, 0]
    assert "gradient for `x`" in verdict.groups[1].message


# What is said


def test_the_mistake_made_is_named():
    assert judge(lambda x: x * x).diagnosis == "You square."


def test_of_two_mistakes_the_first_group_names_one():
    def squares_then_no_gradient(x):
        return x * x if len(x) == 3 else (2 * x).detach()

    assert judge(squares_then_no_gradient).mistake == "squared"


def test_an_error_is_recognised_by_its_type_and_message():
    assert judge(lambda x: x[9]).mistake == "index out of range"
    assert judge(lambda x: x.tolist()[9]).mistake == ""


def test_a_broken_property_is_said_when_no_mistake_is_recognised():
    assert judge(lambda x: -7 * x + 1).diagnosis == "The sign must stay."


def test_the_smallest_failing_input_is_shown():
    assert len(judge(lambda x: x + 1).groups[0].example.splitlines()) == 3


def test_an_exception_is_shown_with_the_learners_own_line():
    def broken(x):
        y = x @ torch.ones(9, dtype=x.dtype)  # the line to show
        return y

    message = judge(broken).groups[0].message
    assert message.startswith("raised RuntimeError: ")
    assert "the line to show" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "error", [SystemExit, GeneratorExit, MemoryError, RecursionError, type("Odd", (BaseException,), {})]
)
def test_an_answer_cannot_end_the_check(error):
    def quits(x):
        raise error

    assert judge(quits).status is Status.WRONG


def test_an_exception_that_cannot_be_printed_is_still_named():
    class Silent(Exception):
        def __str__(self):
            raise ValueError

    def fails(x):
        raise Silent

    assert "Silent" in judge(fails).groups[0].message


def test_a_learner_can_interrupt():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(interrupted)


def test_an_answer_that_needs_an_unwritten_one_waits_for_it():
    def helper(x):
        raise NotImplementedError("not written yet")

    verdict = judge(lambda x: helper(x) + x)
    assert verdict.status is Status.MISSING
    assert verdict.diagnosis == "This one waits for `helper`: write that first."


def test_a_kernel_that_torch_does_not_have_is_no_stub():
    def without_kernel(x):
        return torch.empty(3, device="meta").cpu()

    verdict = judge(without_kernel)
    assert verdict.status is Status.WRONG
    assert "NotImplementedError" in verdict.groups[0].message


def test_a_time_out_is_paid_for_once():
    class Slow:
        calls = 0

        def call(self, args, gradients=False):
            self.calls += 1
            return Answer(status=Status.TIMEOUT, error="TimeoutError")

    slow = Slow()
    verdict = examine(DOUBLE, slow, 5, ROUNDS)
    assert slow.calls == 1
    assert {group.status for group in verdict.groups} == {Status.TIMEOUT}


def test_threads_may_examine_at_the_same_time(capsys):
    verdicts = []
    threads = [threading.Thread(target=lambda: verdicts.append(judge(lambda x: 2 * x))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [verdict.status for verdict in verdicts] == [Status.PASS] * 8
    print("still here")
    assert capsys.readouterr().out == "still here\n"


# check, done and progress


def softmax_without_maximum(x, dim):
    return x.exp() / x.exp().sum(dim, keepdim=True)


def test_check_says_the_same_every_time(kernel, capsys):
    said = []
    for _ in range(2):
        with pytest.raises(CheckFailed, match="5 of 7 points"):
            check("softmax", softmax_without_maximum)
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "exp(1000) is infinite" in said[0]


def test_check_hides_what_the_answer_prints(kernel, capsys):
    def chatty(x, dim):
        print("hello")
        return torch.softmax(x, dim)

    check("softmax", chatty)
    assert "hello" not in capsys.readouterr().out


def test_check_shows_no_traceback_in_a_notebook(kernel):
    shell = InteractiveShell.instance()
    shell.user_ns.update(check=check, wrong=softmax_without_maximum)
    with capture_output() as shown:
        result = shell.run_cell('check("softmax", wrong)')
    assert isinstance(result.error_in_exec, CheckFailed)
    assert "Traceback" not in shown.stdout + shown.stderr
    assert shown.stdout.count("Hint:") == 1


def test_check_knows_its_exercises(kernel):
    with pytest.raises(ValueError, match=r"known: .*softmax"):
        check("sofmax", softmax_without_maximum)
    with pytest.raises(ValueError, match="expected your function"):
        check("softmax", 3)


def test_a_stub_is_not_written_yet(kernel, capsys):
    def softmax(x, dim):
        raise NotImplementedError("not written yet")

    with pytest.raises(CheckFailed, match="not written yet"):
        check("softmax", softmax)
    assert "not written yet" in capsys.readouterr().out


def test_an_answer_that_may_fail_because_of_an_earlier_one_says_so(kernel, capsys):
    for name, answer in (("softmax", softmax_without_maximum), ("nadaraya_watson", lambda *args: None)):
        with pytest.raises(CheckFailed):
            check(name, answer)
    assert "Not right yet either: softmax." in capsys.readouterr().out


def test_progress_counts_what_was_earned(kernel, capsys):
    check("softmax", torch.softmax)
    with pytest.raises(CheckFailed):
        check("nadaraya_watson", lambda *args: None)
    capsys.readouterr()
    progress()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["✓", "softmax", "7/7"]
    assert lines[2].split()[:3] == ["✗", "nadaraya_watson", "0/5"]
    assert "not tried" in lines[3]
    assert lines[-1].strip() == "7 of 39 points"


def test_done_asks_for_every_check_to_have_passed(kernel, capsys):
    check("softmax", torch.softmax)
    assert done("softmax")
    assert not done("softmax", "scores")
    assert "waits until you have passed: scores." in capsys.readouterr().out


def test_every_name_belongs_to_one_exercise():
    names = [exercise.name for stem in stems() for exercise in load(stem)]
    assert len(names) == len(set(names))
    assert all(find(name).name == name for name in names)


def test_importing_the_check_brings_in_no_exercise_and_no_grading():
    code = (
        "import sys; from autograder import check; "
        "heavy = ('nbgrader', 'tx_course', 'matplotlib', 'sqlalchemy'); "
        "print([m for m in sys.modules if m.split('.')[0] in heavy])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert callable(autograder.check)


def test_a_detached_answer_is_told_about_its_gradient_and_nothing_else():
    verdict = examine(find("softmax"), LocalTarget(lambda x, dim: x.detach().softmax(dim)), seed=7, rounds=4)
    assert verdict.earned == verdict.points - 1
    assert "no gradient reaches `x`" in verdict.groups[-1].message
    assert verdict.diagnosis == ""
