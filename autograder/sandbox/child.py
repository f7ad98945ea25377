"""Inside the sandbox: run the cells of one notebook and call the functions they defined, when asked to.

Requests and replies are frames (see ``wire``); every reply repeats the id of its request.
"""

import contextlib
import io
import os
import random
import sys
import warnings
from socket import socket
from typing import Any

import matplotlib.pyplot  # noqa: F401  imported here so that no child has to
import numpy as np
import torch
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from autograder.local import LocalTarget
from autograder.sandbox import wire
from autograder.target import Status

OUTPUT_CHARACTERS = 20_000
# What a notebook from real life asks of the shell, and what has no meaning while it is graded.
IGNORED_MAGICS = ("pip", "conda", "mamba", "uv", "matplotlib", "load_ext", "autoreload", "cd", "system", "sx")
IGNORED_CELL_MAGICS = ("bash", "sh", "html", "javascript", "js", "svg", "latex", "markdown", "writefile")


class Capped(io.StringIO):
    """Text that stops growing at OUTPUT_CHARACTERS."""

    def write(self, text: str) -> int:
        """Keep as much of ``text`` as there is room for."""
        super().write(text[: max(0, OUTPUT_CHARACTERS - self.tell())])
        return len(text)


def warm_up() -> InteractiveShell:
    """Import and start everything that a notebook is likely to use, and return the shell for its cells."""
    # An editable install of the course would find the modules that are hidden here.
    sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in repr(finder)]
    torch.set_num_threads(1)
    wanted = torch.ones(2, 2, requires_grad=True)
    (wanted @ wanted).sum().backward()
    torch.func.vmap(torch.func.jacrev(torch.sin))(torch.zeros(2))
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.xmode = "Minimal"
    shell = InteractiveShell.instance(config=config)
    for name in IGNORED_MAGICS:
        shell.register_magic_function(_ignore, "line", name)
    for name in IGNORED_CELL_MAGICS:
        shell.register_magic_function(_ignore, "cell", name)
    shell.system = shell.system_piped = shell.system_raw = shell.getoutput = _ignore
    return shell


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Stand in for what a graded notebook cannot do, such as installing packages."""


def serve(shell: InteractiveShell, connection: socket) -> None:
    """Answer requests until the grader goes away."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", message=".*non-interactive.*")
    os.environ["HOME"] = os.getcwd()
    while True:
        try:
            request, payload = wire.receive(connection)
        except (EOFError, OSError):
            return
        do = {"run": _run, "call": _call}[request["do"]]
        reply, data = do(shell, request, payload)
        wire.send(connection, {"id": request["id"], **reply}, data)


def _run(shell: InteractiveShell, request: dict, payload: bytes) -> tuple[dict, bytes]:
    output = Capped()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        result = shell.run_cell(request["code"], store_history=False)
    error = result.error_before_exec or result.error_in_exec
    name = type.__getattribute__(type(error), "__name__") if error is not None else ""
    return {"error": name, "output": output.getvalue()[:OUTPUT_CHARACTERS]}, b""


def _call(shell: InteractiveShell, request: dict, payload: bytes) -> tuple[dict, bytes]:
    if request["name"] not in shell.user_ns:
        return {"status": "undefined"}, b""
    args = wire.unpack(request["args"], payload)
    answer = LocalTarget(shell.user_ns[request["name"]]).call(args, request["gradients"])
    if answer.status is not None:
        # The message of an exception could carry the inputs out: only its type leaves.
        name = answer.error if answer.status is Status.MISSING else answer.error.split(":")[0]
        return {"status": str(answer.status), "error": name}, b""
    try:
        packed, data = wire.pack((answer.value, answer.gradients))
    except TypeError:  # a dtype that no exercise uses
        return {"status": str(Status.WRONG), "error": "TypeError"}, b""
    return {"status": "", "changed": list(answer.changed), "value": packed}, data
