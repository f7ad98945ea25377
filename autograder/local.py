"""Call a function in this process: the learner's own kernel, the inside of a sandbox, or a reference."""

import dis
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from autograder.compare import Unreadable, plain
from autograder.target import Answer, Status

NOT_THEIRS = ("site-packages", "<frozen", str(Path(torch.__file__).parent), str(Path(__file__).parent))


@dataclass(frozen=True)
class LocalTarget:
    """A function as a target. Any thread may call it."""

    function: Callable[..., Any]

    def call(self, args: tuple, gradients: bool = False) -> Answer:
        """Call the function with copies of ``args`` and return what became of it.

        With ``gradients``, also differentiate a weighted sum of all floating-point outputs with respect to
        each floating-point tensor among ``args``. (The weights are fixed and all different: the plain sum
        of a softmax is always 1, and its gradient 0.)
        """
        leaves = tuple(_leaf(arg) if gradients else None for arg in args)
        # Clones, not leaves, so that writing to an input in place is found and not forbidden by autograd.
        passed = tuple(
            copy(arg) if leaf is None else leaf.clone() for arg, leaf in zip(args, leaves, strict=True)
        )
        try:
            with torch.enable_grad():
                returned = self.function(*passed)
                slopes = _gradients(returned, leaves) if gradients else None
            value = plain(returned)
        except KeyboardInterrupt:
            raise
        except Unreadable as error:
            return Answer(status=Status.WRONG, error=f"TypeError: expected a tensor, got {error}")
        except BaseException as error:
            stub = _unwritten_function(error)
            if stub:
                return Answer(status=Status.MISSING, error=stub)
            return Answer(status=Status.WRONG, error=_summary(error))
        changed = tuple(i for i, (a, p) in enumerate(zip(args, passed, strict=True)) if not _unchanged(a, p))
        return Answer(value=value, changed=changed, gradients=slopes)


def copy(arg: Any) -> Any:
    """Return a copy of an argument that shares no memory with it."""
    if isinstance(arg, Tensor):
        return arg.detach().clone()
    if isinstance(arg, (tuple, list)):
        return type(arg)(map(copy, arg))
    return arg


def _leaf(arg: Any) -> Tensor | None:
    if isinstance(arg, Tensor) and arg.is_floating_point():
        return arg.detach().clone().requires_grad_()
    return None


def _unchanged(before: Any, after: Any) -> bool:
    if type(before) is not type(after):
        return False
    if isinstance(before, Tensor):
        return before.dtype == after.dtype and torch.equal(before, after.detach())
    if isinstance(before, (tuple, list)):
        return len(before) == len(after) and all(map(_unchanged, before, after))
    return True


def _outputs(returned: Any) -> list[Tensor]:
    if type(returned) is Tensor and returned.is_floating_point():
        return [returned]
    if type(returned) in (tuple, list):
        return [tensor for item in returned for tensor in _outputs(item)]
    return []


def _gradients(returned: Any, leaves: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    total = torch.zeros((), dtype=torch.float64)
    for number, output in enumerate(_outputs(returned)):
        weights = torch.cos(torch.arange(output.numel(), dtype=torch.float64) + number)
        total = total + (output.double().flatten() * weights).sum()
    wanted = [leaf for leaf in leaves if leaf is not None]
    if not total.requires_grad:
        return (None,) * len(leaves)
    found = iter(torch.autograd.grad(total, wanted, allow_unused=True))
    return tuple(None if leaf is None else next(found) for leaf in leaves)


def _unwritten_function(error: BaseException) -> str:
    """Return the name of the function whose stub raised ``error``, or an empty string.

    PyTorch raises NotImplementedError too, for a dtype it has no kernel for; but from no ``raise`` statement
    of the learner's.
    """
    if not isinstance(error, NotImplementedError):
        return ""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    by_hand = dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
    return code.co_name if by_hand and "site-packages" not in code.co_filename else ""


def _summary(error: BaseException) -> str:
    """Return the type and message of ``error`` in one line, and the learner's own line in a second."""
    try:
        message = " ".join(str(error).split())[:200]
    except Exception:  # the exception is the learner's, and so is its __str__
        message = ""
    kind = type.__getattribute__(type(error), "__name__")
    line = _their_line(error.__traceback__)
    return f"{kind}: {message}" + (f"\n{line}" if line else "")


def _their_line(trace: TracebackType | None) -> str:
    found = ""
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        line = linecache.getline(path, trace.tb_lineno).strip()
        if line and not any(part in path for part in NOT_THEIRS):
            found = f"line {trace.tb_lineno}: {line}"
        trace = trace.tb_next
    return found
