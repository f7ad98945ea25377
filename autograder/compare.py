"""Read what an answer returned without trusting it, and say how it differs from what was expected."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

LOOSEST = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128)
DTYPES = frozenset((*FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool))
MOST_NUMBERS = 10_000_000
NUMBERS = {bool: torch.bool, int: torch.int64, float: torch.float64}
SHOWN_WHOLE = 24  # numbers
NUMPY_SCALARS = frozenset(np.sctypeDict.values())


class Unreadable(TypeError):
    """An answer returned something other than tensors, arrays, numbers, strings, None, or tuples of these."""


def plain(value: Any, depth: int = 3) -> Any:
    """Return ``value`` with every tensor, array and number turned into a fresh tensor of its own dtype.

    Types are compared exactly and methods are taken from the class, because a subclass or an attribute of
    the object can say whatever it likes. Lists become tuples; strings and None stay as they are.
    Raises Unreadable for anything else, and for tuples nested more than ``depth`` deep.

    >>> plain([1.5, None])
    (tensor(1.5000, dtype=torch.float64), None)
    """
    kind = type(value)
    if kind in (Tensor, torch.nn.Parameter):
        return _from_tensor(value)
    if kind is np.ndarray or kind in NUMPY_SCALARS:
        return _from_numpy(value)
    if kind in NUMBERS:
        return _from_number(value)
    if value is None or kind is str:
        return value
    if kind in (tuple, list) and depth:
        return tuple(plain(item, depth - 1) for item in value)
    raise Unreadable(_article(type.__getattribute__(kind, "__name__")))


def _from_tensor(tensor: Tensor) -> Tensor:
    odd = Tensor.layout.__get__(tensor) is not torch.strided or Tensor.is_nested.__get__(tensor)
    if odd or Tensor.is_meta.__get__(tensor) or Tensor.dtype.__get__(tensor) not in DTYPES:
        raise Unreadable("a tensor that is sparse, nested, quantized or without numbers")
    if Tensor.numel(tensor) > MOST_NUMBERS:
        raise Unreadable(f"a tensor of more than {MOST_NUMBERS:,} numbers")
    return Tensor.clone(Tensor.cpu(Tensor.detach(tensor)))


def _from_numpy(array: np.ndarray | np.generic) -> Tensor:
    if array.size > MOST_NUMBERS:
        raise Unreadable(f"an array of more than {MOST_NUMBERS:,} numbers")
    try:
        return torch.from_numpy(np.array(array, copy=True))
    except TypeError:
        raise Unreadable(f"a NumPy array of {array.dtype}") from None


def _from_number(number: float) -> Tensor:
    if type(number) is int and not -(2**63) <= number < 2**63:
        raise Unreadable("an integer of more than 64 bits")
    return torch.tensor(number, dtype=NUMBERS[type(number)])


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def same(expected: Any, actual: Any, tolerance: float) -> bool:
    """Whether two plain values agree in structure, shape, dtype and, up to ``tolerance``, in every number.

    >>> same(plain((1.0, "a")), plain([1.0 + 1e-12, "a"]), 1e-8)
    True
    """
    if type(expected) is not type(actual):
        return False
    if isinstance(expected, tuple):
        pairs = zip(expected, actual, strict=False)
        return len(expected) == len(actual) and all(same(e, a, tolerance) for e, a in pairs)
    if not isinstance(expected, Tensor):
        return expected == actual
    return (
        expected.shape == actual.shape
        and expected.dtype == actual.dtype
        and _near(expected, actual, tolerance)
    )


def _close(expected: Tensor, actual: Tensor, tolerance: float) -> Tensor:
    """Where two tensors of one shape agree, as booleans of that shape."""
    tolerance = max(tolerance, LOOSEST.get(expected.dtype, 0.0))
    return torch.isclose(actual.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True)


def _near(expected: Tensor, actual: Tensor, tolerance: float) -> bool:
    return bool(_close(expected, actual, tolerance).all())


def describe(value: Any) -> str:
    """Say what kind of thing a plain value is.

    >>> describe(plain(([0.5], None)))
    'a tuple or list of 2'
    """
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}" if value.dim() else "a number"
    if isinstance(value, tuple):
        return f"a tuple or list of {len(value)}"
    return "None (is a return missing?)" if value is None else "a string"


def difference(expected: Any, actual: Any, tolerance: float) -> str:
    """Say in one sentence how ``actual`` differs from ``expected``; both are plain, and not the same.

    >>> difference(plain(1.0), plain(3.0), 1e-8)
    'expected 1, got 3'
    """
    if isinstance(expected, tuple) and isinstance(actual, tuple) and len(expected) == len(actual):
        where = next(
            i for i, (e, a) in enumerate(zip(expected, actual, strict=True)) if not same(e, a, tolerance)
        )
        return f"result {where + 1} of {len(expected)}: " + difference(
            expected[where], actual[where], tolerance
        )
    if not (isinstance(expected, Tensor) and isinstance(actual, Tensor)):
        if type(expected) is type(actual) is str:
            return f"expected {expected!r}, got {actual[:40]!r}"
        return f"expected {describe(expected)}, got {describe(actual)}"
    if expected.shape != actual.shape:
        return f"expected shape {tuple(expected.shape)}, got {tuple(actual.shape)}"
    if expected.dtype != actual.dtype:
        return f"expected dtype {_name(expected.dtype)}, got {_name(actual.dtype)}"
    return _numbers_that_differ(expected, actual, tolerance)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _numbers_that_differ(expected: Tensor, actual: Tensor, tolerance: float) -> str:
    if not expected.dim():
        return f"expected {expected.item():.6g}, got {actual.item():.6g}"
    wrong = ~_close(expected, actual, tolerance)
    count = f"{int(wrong.sum())} of {wrong.numel()} numbers differ"
    for what, test in (("NaN", torch.isnan), ("infinite", torch.isinf)):
        if (test(actual) & wrong).any():
            return f"{count}; {int((test(actual) & wrong).sum())} of them are {what}"
    largest = (expected.double() - actual.double())[wrong].abs().max().item()
    return f"{count}, by up to {largest:.2g}"


def explain(expected: Any, actual: Any, tolerance: float) -> str:
    """Guess in one sentence why ``actual`` differs from ``expected``, or return an empty string."""
    if same(expected, actual, tolerance):
        return ""  # the values are right: something else is wrong, such as a gradient
    if isinstance(expected, tuple) and isinstance(actual, tuple):
        pairs = zip(expected, actual, strict=False)
        return next((explain(e, a, tolerance) for e, a in pairs if not same(e, a, tolerance)), "")
    if not (isinstance(expected, Tensor) and isinstance(actual, Tensor)):
        return ""
    if expected.is_complex() or actual.is_complex():
        return ""
    if expected.dtype != actual.dtype:
        return _explain_dtype(expected, actual)
    if expected.shape != actual.shape:
        return _explain_shape(expected, actual, tolerance)
    return _explain_numbers(expected, actual, tolerance)


def _explain_dtype(expected: Tensor, actual: Tensor) -> str:
    if expected.shape == actual.shape and _near(expected, actual, 1e-4):
        return (
            f"The numbers are right, but as {_name(actual.dtype)}. Keep the dtype of the inputs: look for "
            ".float(), or for a new tensor made without dtype=."
        )
    return ""


def _explain_shape(expected: Tensor, actual: Tensor, tolerance: float) -> str:
    for first, second in pairwise(range(actual.dim())):
        swapped = actual.transpose(first, second)
        if swapped.shape == expected.shape and _near(expected, swapped, tolerance):
            return f"The numbers are right, but axes {first} and {second} have changed places."
    if actual.squeeze().shape == expected.squeeze().shape:
        return "The shapes differ only by an axis of length 1: look at keepdim, squeeze and indexing."
    return ""


def _explain_numbers(expected: Tensor, actual: Tensor, tolerance: float) -> str:
    if expected.dtype == torch.bool and torch.equal(expected, ~actual):
        return "Every True should be False, and every False True."
    if not expected.is_floating_point():
        return ""
    if bool(actual.isfinite().logical_not().any() and expected.isfinite().all()):
        return "NaN and infinity come from inf − inf, 0/0 or exp of a large number. Which comes first?"
    if expected.numel() > 1 and expected.isfinite().all() and expected.norm() > 0:
        factor = ((actual * expected).sum() / (expected * expected).sum()).item()
        if abs(factor) > 1e-6 and _near(expected * factor, actual, tolerance):
            return f"Every number is {factor:.4g} times what it should be."
        offset = (actual - expected).mean().item()
        if _near(expected + offset, actual, tolerance):
            return f"Every number is off by the same {offset:.4g}."
    return ""


def count_numbers(value: Any) -> int:
    """Return how many numbers an argument holds, so that the smallest failing input can be shown."""
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, (tuple, list)):
        return sum(map(count_numbers, value))
    return 1


def show(value: Any) -> str:
    """Return a plain value or an argument as short text, the same on every run. A large tensor shows its
    first and last numbers.

    >>> show(torch.tensor([[1.0, 2.0]]))
    '[[1. 2.]]'
    """
    if isinstance(value, Tensor):
        if not value.dim():
            return f"{value.item():.6g}" if value.is_floating_point() else str(value.item())
        array = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        array = array.ravel() if array.size > SHOWN_WHOLE or array.ndim > 2 else array
        return np.array2string(array, precision=4, threshold=SHOWN_WHOLE, edgeitems=3, max_line_width=88)
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(show, value)) + ")"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
