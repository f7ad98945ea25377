"""What a computation costs: seconds on the clock, and bytes of tensors held at once."""

import time
import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """Return the shortest of ``repeats`` runs of ``function``, in seconds, after one run to warm up.

    The shortest, because whatever else the machine does can only make a run longer. Raises ValueError if
    ``repeats`` is less than 1.

    >>> seconds(lambda: None) < 1
    True
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_bytes(function: Callable[[], object]) -> int:
    """Return the most bytes held at one time by tensors that ``function`` makes, its result included.

    Only tensors on the CPU or GPU that PyTorch hands to Python or to autograd are counted: not the scratch
    space inside one kernel, and not a view of a tensor that was there before. The count is the same on every
    run.

    >>> peak_bytes(lambda: torch.zeros(1000, dtype=torch.float64) + 1)
    16000
    """
    ledger = _Ledger()
    with ledger:
        function()
    return ledger.peak


class _Ledger(TorchDispatchMode):
    """Sees every tensor operation, and adds up the storages that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self.alive: set[int] = set()
        self.given: set[int] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in self.alive:
                self.given.add(leaf.untyped_storage().data_ptr())
        result = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._enter(leaf.untyped_storage())
        return result

    def _enter(self, storage: torch.UntypedStorage) -> None:
        # A view shares its storage with the tensor it looks at, so the same address is entered once.
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self.alive | self.given or size == 0:
            return
        self.alive.add(address)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._leave, address, size)

    def _leave(self, address: int, size: int) -> None:
        self.alive.discard(address)
        self.held -= size
