"""Try to break each protection from inside a child, before any notebook is graded."""

import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from string import Template

from autograder.levels import ROOT
from autograder.sandbox.host import Died, Sandbox, environment

SECONDS = 20
BREACH = "\nraise SystemError('the attempt succeeded')"

# Each attempt is a cell that must end in one of the errors named, and not in BREACH.
ATTEMPTS = {
    "the course's files, your home and other submissions are out of sight": (
        "import os\n"
        "seen = [path for path in $secrets if os.path.exists(path)]\n"
        "assert not seen, seen\n"
        "raise FileNotFoundError"
    ),
    "the reference models and the checks cannot be imported": (
        "from importlib.util import find_spec\n"
        "names = ['tx_course.$stem', 'autograder.exercises', 'autograder.examine']\n"
        "def found(name):\n"
        "    try: return find_spec(name)\n"
        "    except ModuleNotFoundError: return None\n"
        "assert not any(map(found, names))\n"
        "raise ModuleNotFoundError"
    ),
    "nothing can be written outside an empty /tmp of its own": (
        "import os\n"
        "assert os.listdir('/tmp') == []\n"
        "for folder in ['/', '/dev', '/box', '/proc', os.path.dirname(os.__file__)]:\n"
        "    try: open(folder + '/written', 'w')\n"
        "    except OSError: continue\n"
        "    raise SystemError(folder)\n"
        "raise OSError"
    ),
    "no network, not even this machine's own": (
        "import socket\nsocket.create_connection(('127.0.0.1', $port), timeout=2)"
    ),
    "no other process can be seen or signalled": (
        "import os, signal\n"
        "assert os.getpid() == 1 and os.getppid() == 0 and not os.listdir('/proc')\n"
        "os.kill($grader, signal.SIGCONT)"
    ),
    "no privilege: not root, and no way to become it": ("import os\nassert os.getuid() != 0\nos.setuid(0)"),
    "the mounts that hide things cannot be removed": (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "libc.unshare(0x10020000)\n"
        "assert libc.umount2(b'/proc', 2) != 0\n"
        "raise OSError(ctypes.get_errno(), 'umount')"
    ),
    "your environment stays outside": (
        "import os\nseen = $names & set(os.environ)\nassert not seen, seen\nraise KeyError"
    ),
    "memory is limited": "held = bytearray(64 << 30)",
    "the number of processes is limited": (
        "import os, time\n"
        "started = []\n"
        "try:\n"
        "    for _ in range(200):\n"
        "        pid = os.fork()\n"
        "        if pid == 0: time.sleep(60); os._exit(0)\n"
        "        started.append(pid)\n"
        "finally:\n"
        "    for pid in started: os.kill(pid, 9); os.waitpid(pid, 0)"
    ),
    "the size of files is limited": ("with open('/tmp/large', 'wb') as file:\n    file.truncate(1 << 40)"),
    "the number of open files is limited": "held = [open('/dev/null') for _ in range(2000)]",
}
EXPECTED = (
    *("FileNotFoundError", "ModuleNotFoundError", "OSError", "ConnectionRefusedError", "ProcessLookupError"),
    *("PermissionError", "KeyError", "MemoryError", "BlockingIOError"),
)


@dataclass(frozen=True)
class Protection:
    """One protection, whether the attempt to break it failed, and what came of the attempt."""

    sentence: str
    holds: bool
    detail: str


def try_to_break(sandbox: Sandbox, stem: str) -> list[Protection]:
    """Attempt each attack in a child of ``sandbox`` and return what became of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept_one, args=(listener,), daemon=True).start()
        values = {
            "secrets": repr(_secrets()),
            "stem": stem,
            "port": listener.getsockname()[1],
            "grader": os.getpid(),
            # PyTorch itself sets TORCHINDUCTOR_CACHE_DIR, on either side.
            "names": repr(set(os.environ) - {*environment(Path("/")), "PWD", "TORCHINDUCTOR_CACHE_DIR"}),
        }
        found = [
            _attempt(sandbox, sentence, Template(code).substitute(values) + BREACH)
            for sentence, code in ATTEMPTS.items()
        ]
    return [*found, _endless_loop(sandbox)]


def _attempt(sandbox: Sandbox, sentence: str, code: str) -> Protection:
    child = sandbox.spawn()
    try:
        reply, _ = child.ask(SECONDS, {"do": "run", "code": code})
    except (Died, TimeoutError) as error:
        return Protection(sentence, False, f"no answer: {type(error).__name__}")
    finally:
        child.kill()
    return Protection(sentence, reply["error"] in EXPECTED, reply["output"].strip())


def _endless_loop(sandbox: Sandbox) -> Protection:
    sentence = "an endless loop is ended, whatever signals it ignores"
    code = "import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: pass"
    child = sandbox.spawn()
    start = time.monotonic()
    try:
        child.ask(0.3, {"do": "run", "code": code})
    except TimeoutError:
        return Protection(sentence, time.monotonic() - start < SECONDS, "ended")
    finally:
        child.kill()
    return Protection(sentence, False, "it came back")


def _accept_one(listener: socket.socket) -> None:
    try:
        listener.accept()[0].close()
    except OSError:  # closed: nobody came, as it should be
        return


def _secrets() -> list[str]:
    course = ("solutions", "samples", "submitted", "gradebook.db", "tests", "tx_course", "autograder")
    home = (".ssh", ".bashrc", ".profile", ".config", ".netrc", ".gitconfig")
    paths = [*(ROOT / name for name in course), *(Path.home() / name for name in home)]
    return [*map(str, paths), "/etc/passwd", "/etc/shadow", "/bin/sh"]
