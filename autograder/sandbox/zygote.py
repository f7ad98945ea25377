"""A warm process that has everything imported and forks one child per notebook.

Standard input is a socket to the grader. Each message on it carries two file descriptors: the child's
socket for frames, and a leash. When the grader lets go of the leash, or dies, the child dies.
"""

import contextlib
import gc
import os
import signal
import socket
import sys

from autograder.sandbox import child, walls


def main() -> None:
    """Serve until the grader closes the socket."""
    boxed, uid, cpu_seconds = sys.argv[1] == "boxed", int(sys.argv[2]), int(sys.argv[3])
    if uid >= 0:
        walls.become(uid)
    shell = child.warm_up()
    if boxed:
        walls.hide()
    control = socket.socket(fileno=os.dup(0))
    _nothing_for_input()
    gc.freeze()  # the children share these pages as long as the collector leaves them alone
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control.sendall(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 16, 2)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            control.close()
            _guard(shell, *descriptors, boxed, {**walls.LIMITS, "RLIMIT_CPU": cpu_seconds})
        for descriptor in descriptors:
            os.close(descriptor)


def _nothing_for_input() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def _guard(shell: object, frames: int, leash: int, boxed: bool, limits: dict[str, int]) -> None:
    """Start the child and kill it when the leash is let go. Never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if boxed:
        walls.new_namespaces()
    pid = os.fork()
    if pid == 0:
        os.close(leash)
        _become_child(shell, frames, boxed, limits)
    os.close(frames)
    os.read(leash, 1)  # ends when the other end is closed
    os.kill(pid, signal.SIGKILL)  # process 1 of its namespace: everything it started dies too
    if not boxed:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    os._exit(0)


def _become_child(shell: object, frames: int, boxed: bool, limits: dict[str, int]) -> None:
    """Put up the walls and serve the grader's requests. Never returns."""
    os.setsid()  # else a signal to its own group would reach its guard
    if boxed:
        walls.close_in(limits)
        os.chdir("/tmp")
    else:
        walls.limit(limits)
    os.dup2(0, 2)
    connection = socket.socket(fileno=os.dup2(frames, 3))
    os.closerange(4, 1024)
    try:
        child.serve(shell, connection)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
