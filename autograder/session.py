"""One learner's notebook at work: run its cells in a child, call its functions, and carry on when it dies."""

import builtins
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from autograder.sandbox import wire
from autograder.sandbox.host import Child, Died, Sandbox
from autograder.submission import Cell, clean
from autograder.target import Answer, Status

OUTPUT_CHARACTERS = 20_000


@dataclass(frozen=True)
class Limits:
    """How long a cell, a call of a function, and a whole submission may take, in seconds of wall time."""

    cell: float = 10
    call: float = 5
    submission: float = 120


@dataclass(frozen=True)
class Outcome:
    """What came of one cell: its output, the type of the exception that ended it, or how it was ended."""

    output: str = ""
    error: str = ""
    ending: Status | None = None


class _OutOfTime(Exception):
    pass


class Session:
    """The notebook ``cells`` in a child of ``sandbox``. Use it as a context manager.

    A cell that runs out of time or kills the child costs itself: a fresh child runs the others again. A call
    that does so costs that call.
    """

    def __init__(self, sandbox: Sandbox, cells: Sequence[Cell], limits: Limits):
        self.outcomes: dict[int, Outcome] = {}
        self._sandbox = sandbox
        self._cells = cells
        self._limits = limits
        self._end = time.monotonic() + limits.submission
        self._child: Child | None = None

    def __enter__(self) -> "Session":
        """Return the session."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self._drop()

    def run(self) -> None:
        """Run every cell."""
        try:
            self._ready()
        except _OutOfTime:
            for number, cell in enumerate(self._cells):
                if cell.runs:
                    self.outcomes.setdefault(number, Outcome(ending=Status.TIMEOUT))

    def outcome(self, grade_id: str) -> Outcome:
        """Return what came of the last cell ``grade_id`` that ran."""
        numbers = [
            n for n, cell in enumerate(self._cells) if cell.grade_id == grade_id and n in self.outcomes
        ]
        return self.outcomes[numbers[-1]] if numbers else Outcome()

    def call(self, name: str, args: tuple, gradients: bool) -> Answer:
        """Call the function ``name`` of the notebook."""
        packed, data = wire.pack(args)
        request = {"do": "call", "name": name, "gradients": gradients, "args": packed}
        try:
            child = self._ready()
            reply, payload = child.ask(self._seconds(self._limits.call), request, data)
            answer = _answer(reply, payload, len(args))
        except (TimeoutError, _OutOfTime):
            self._drop()
            return Answer(status=Status.TIMEOUT)
        except (Died, wire.BrokenFrame):
            self._drop()
            return Answer(status=Status.CRASHED)
        if answer is None:
            return Answer(status=self.outcome(name).ending or Status.MISSING, error=name)
        return answer

    def _seconds(self, most: float) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise _OutOfTime
        return min(most, left)

    def _ready(self) -> Child:
        """Return a child in which every cell that can be run has run."""
        while self._child is None:
            child = self._sandbox.spawn()
            try:
                completed = all(
                    self._run(child, number) for number, cell in enumerate(self._cells) if cell.runs
                )
            except BaseException:
                child.kill()
                raise
            if completed:
                self._child = child
            else:
                child.kill()
        return self._child

    def _run(self, child: Child, number: int) -> bool:
        """Run one cell. Return False if the child did not survive it."""
        if number in self.outcomes and self.outcomes[number].ending:
            return True  # it was the end of an earlier child
        try:
            seconds = self._seconds(self._limits.cell)
            reply, _ = child.ask(seconds, {"do": "run", "code": self._cells[number].source})
        except TimeoutError:
            self.outcomes[number] = Outcome(ending=Status.TIMEOUT)
            return False
        except Died:
            self.outcomes[number] = Outcome(ending=Status.CRASHED)
            return False
        output = clean(_text(reply.get("output"))[:OUTPUT_CHARACTERS])
        self.outcomes.setdefault(number, Outcome(output, _text(reply.get("error"))[:80]))
        return True

    def _drop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


@dataclass(frozen=True)
class RemoteTarget:
    """One function of a notebook in a sandbox, as a target of checks."""

    session: Session
    name: str

    def call(self, args: tuple, gradients: bool = False) -> Answer:
        """Call the function with ``args``, which arrive as copies."""
        return self.session.call(self.name, args, gradients)


def _answer(reply: dict, payload: bytes, count: int) -> Answer | None:
    """Return what a child says came of a call, or None if there is no such function.

    Raises BrokenFrame for anything that the child's own program does not say.
    """
    status = reply.get("status")
    if status == "undefined":
        return None
    if status == Status.MISSING:
        name = _text(reply.get("error"))[:80]
        return Answer(status=Status.MISSING, error=name if name.isidentifier() else "")
    if status == Status.WRONG:
        return Answer(status=Status.WRONG, error=_exception_name(reply.get("error")))
    if status != "":
        raise wire.BrokenFrame("an unknown status")
    returned = wire.unpack(reply.get("value"), payload)
    changed = reply.get("changed")
    if type(returned) is not tuple or len(returned) != 2 or type(changed) is not list:
        raise wire.BrokenFrame("no value, or no list of changed arguments")
    value, slopes = returned
    if not all(type(i) is int and 0 <= i < count for i in changed) or not _are_gradients(slopes, count):
        raise wire.BrokenFrame("changed arguments or gradients that do not fit the call")
    return Answer(value=value, changed=tuple(changed), gradients=slopes)


def _are_gradients(slopes: Any, count: int) -> bool:
    if slopes is None:
        return True
    fits = type(slopes) is tuple and len(slopes) == count
    return fits and all(slope is None or isinstance(slope, Tensor) for slope in slopes)


def _exception_name(name: Any) -> str:
    """Return the name of a built-in exception; any other could be made up to carry the inputs out."""
    known = getattr(builtins, name, None) if isinstance(name, str) else None
    return name if isinstance(known, type) and issubclass(known, BaseException) else "Exception"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
