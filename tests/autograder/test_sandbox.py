"""What code inside the sandbox can and cannot do."""

import os
import socket
import threading
import time
from pathlib import Path

import pytest
import torch

from autograder.levels import ROOT, find_level
from autograder.sandbox import bubblewrap, wire
from autograder.sandbox import child as inside
from autograder.sandbox.host import Died, Sandbox
from autograder.sandbox.protections import ATTEMPTS, try_to_break
from autograder.sandbox.visible import visible_modules


@pytest.fixture
def child(sandbox):
    one = sandbox.spawn()
    yield one
    one.kill()


def run(child, code: str, seconds: float = 20) -> dict:
    return child.ask(seconds, {"do": "run", "code": code})[0]


def value(child, expression: str) -> str:
    reply = run(child, f"print({expression})")
    assert not reply["error"], reply
    return reply["output"].strip()


def call(child, name: str, *args, seconds: float = 20) -> tuple[dict, bytes]:
    packed, data = wire.pack(args)
    return child.ask(seconds, {"do": "call", "name": name, "gradients": False, "args": packed}, data)


def test_a_python_in_tmp_is_seen_at_another_place():
    """The inside of /tmp is empty, so an environment that lives there has to move."""
    assert bubblewrap.inside(Path("/tmp/course/.venv/bin")) == Path("/python/tmp/course/.venv/bin")
    assert bubblewrap.inside(Path("/home/course/.venv/bin")) == Path("/home/course/.venv/bin")


def test_every_protection_holds(sandbox):
    found = try_to_break(sandbox, "attention")
    assert len(found) == len(ATTEMPTS) + 1
    assert [protection for protection in found if not protection.holds] == []


def test_without_isolation_the_attempts_succeed_so_they_attempt_something(assignment):
    with Sandbox(assignment.level, "none") as opened:
        broken = [p.sentence for p in try_to_break(opened, "attention") if not p.holds]
    assert any("out of sight" in sentence for sentence in broken)
    assert any("network" in sentence for sentence in broken)
    assert any("other process" in sentence for sentence in broken)
    assert any("environment" in sentence for sentence in broken) is False  # it is clean in any case


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "solutions",
        ROOT / "autograder" / "exercises",
        ROOT / "tx_course",
        ROOT / "samples",
        "/etc/passwd",
        "/bin/sh",
        "/sys",
    ],
)
def test_a_child_does_not_see(child, path):
    assert value(child, f"__import__('os').path.exists({str(path)!r})") == "False"


def test_the_whole_file_system_holds_no_file_of_the_course(child):
    code = """
import os
found = [os.path.join(folder, name) for folder, _, files in os.walk('/') for name in files]
print(len(found) > 1000, [path for path in found if 'level2_' in path or 'exercises' in path.split('/')])
"""
    assert run(child, code)["output"].strip() == "True []"


def test_helpers_for_plots_can_be_imported_and_answers_cannot(child):
    assert run(child, "from tx_course.plots import heatmap")["error"] == ""
    assert run(child, "import tx_course.attention")["error"] == "ModuleNotFoundError"
    assert run(child, "import tx_course.transformer")["error"] == "ModuleNotFoundError"


def test_no_visible_module_reaches_a_module_of_this_level_or_a_later_one():
    level = find_level("attention")
    for path in visible_modules(level):
        sources = path.rglob("*.py") if path.is_dir() else [path]
        text = "".join(source.read_text("utf-8") for source in sources)
        assert "tx_course.attention import" not in text and "import attend" not in text


def test_check_does_nothing_inside(child):
    assert run(child, "from autograder import check, done, progress\ncheck('softmax', None)")["error"] == ""
    assert value(child, "done('softmax')") == "False"


def test_a_child_finds_nothing_of_the_one_before(sandbox):
    first, second = sandbox.spawn(), sandbox.spawn()
    run(first, "open('/tmp/left', 'w').write('x'); import torch; torch.left = 1")
    assert (
        value(second, "__import__('os').listdir('/tmp'), hasattr(__import__('torch'), 'left')") == "[] False"
    )
    first.kill()
    second.kill()


def test_killing_a_child_kills_what_it_started(sandbox):
    child = sandbox.spawn()
    code = """
import ctypes, os, time
if os.fork() == 0:
    ctypes.CDLL(None).prctl(15, b'grandchild')
    time.sleep(60)
"""
    run(child, code)
    time.sleep(0.2)
    assert "grandchild" in _process_names()
    child.kill()
    time.sleep(0.5)
    assert "grandchild" not in _process_names()


def _process_names() -> set[str]:
    names = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as file:
                names.add(file.read().strip())
        except OSError:
            continue
    return names


def test_a_child_that_asks_not_to_die_with_its_parent_dies(sandbox):
    child = sandbox.spawn()
    code = "import ctypes, signal\nctypes.CDLL(None).prctl(1, 0)\nctypes.CDLL(None).prctl(15, b'clinging')\n"
    run(child, code)
    assert "clinging" in _process_names()
    child.kill()
    time.sleep(0.5)
    assert "clinging" not in _process_names()


@pytest.mark.parametrize("code", ["import os; os._exit(3)", "import ctypes; ctypes.string_at(0)"])
def test_a_death_is_noticed_at_once(child, code):
    start = time.monotonic()
    with pytest.raises(Died):
        run(child, code)
    assert time.monotonic() - start < 10


def test_a_child_cannot_kill_its_guard_and_live_on(sandbox):
    child = sandbox.spawn()
    code = """
import contextlib, ctypes, os, signal
ctypes.CDLL(None).prctl(1, 0)
ctypes.CDLL(None).prctl(15, b'guardkiller')
for group in (-1, 0):
    with contextlib.suppress(OSError):
        os.kill(group, signal.SIGKILL)
"""
    run(child, code)
    child.kill()
    time.sleep(0.5)
    assert "guardkiller" not in _process_names()
    again = sandbox.spawn()
    assert value(again, "1 + 1") == "2"
    again.kill()


def test_a_lost_zygote_is_replaced(assignment, sandbox):
    with Sandbox(assignment.level) as own:
        own._process.kill()
        own._process.wait()
        child = own.spawn()
        assert value(child, "1 + 1") == "2"
        child.kill()


def test_output_is_capped(child):
    reply = run(child, "for _ in range(2000): print('x' * 10_000)")
    assert len(reply["output"]) == inside.OUTPUT_CHARACTERS


def test_magics_and_shell_commands_are_ignored(child):
    assert run(child, "%pip install torch\n!ls\n%matplotlib inline\nx = !ls\n%cd /\n7")["error"] == ""
    assert run(child, "%%bash\nrm -rf /")["error"] == ""


def test_a_plot_is_drawn_and_shown(child):
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nplt.savefig('figure.png')"
    assert run(child, code)["error"] == ""


def test_a_function_is_called_with_the_arrays_sent(child):
    run(child, "def double(x, factor): return x * factor, None")
    reply, data = call(child, "double", torch.tensor([[1.5, -2.0]], dtype=torch.float64), 2)
    (doubled, nothing), gradients = wire.unpack(reply["value"], data)
    assert doubled.tolist() == [[3.0, -4.0]] and nothing is None and gradients is None


def test_the_message_of_an_exception_does_not_leave(child):
    run(child, "def leak(x): raise ValueError(f'the input was {x}')")
    reply, _ = call(child, "leak", torch.ones(1))
    assert reply["error"] == "ValueError"


def test_a_frame_sent_ahead_of_time_is_not_a_reply(child):
    run(
        child,
        "def ahead(x):\n"
        "    import socket, json, struct\n"
        "    line = socket.socket(fileno=3)\n"
        "    text = json.dumps({'id': '', 'status': '', 'changed': [], 'value': 1.0}).encode()\n"
        "    line.sendall(struct.pack('!IQ', len(text), 0) + text)\n"
        "    line.detach()\n"
        "    return x",
    )
    with pytest.raises(Died, match="another request"):
        call(child, "ahead", torch.ones(1))


@pytest.mark.parametrize(
    "frame",
    [
        wire.LENGTHS.pack(1 << 31, 0),
        wire.LENGTHS.pack(2, 1 << 62),
        wire.LENGTHS.pack(2, 0) + b"[]",
        wire.LENGTHS.pack(3, 0) + b"\xff\xff\xff",
        wire.LENGTHS.pack(100_000, 0) + b"[" * 100_000,
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["huge header", "huge payload", "a list", "not text", "nested", "another protocol"],
)
def test_what_is_not_a_frame_is_refused(frame):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        threading.Thread(target=theirs.sendall, args=(frame,)).start()
        with pytest.raises(wire.BrokenFrame):
            wire.receive(ours, time.monotonic() + 10)


def test_half_a_frame_runs_out_of_time():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(wire.LENGTHS.pack(10, 0) + b"{")
        with pytest.raises(TimeoutError):
            wire.receive(ours, time.monotonic() + 0.2)


@pytest.mark.parametrize(
    "packed",
    [
        {"tensor": ["float64", [1 << 40]]},
        {"tensor": ["float64", [-1]]},
        {"tensor": ["float64", [2, 1 << 30, 0]]},
        {"tensor": ["float64", [True]]},
        {"tensor": ["object", [1]]},
        {"tensor": [["float64"], [1]]},
        {"tensor": ["float64", [1] * 40]},
        {"tensor": ["float64", []], "list": []},
        {"pickle": "gASVAAAA"},
        [1, 2],
        {
            "list": [
                {
                    "list": [
                        {"list": [{"list": [{"list": [{"list": [{"list": [{"list": [{"list": []}]}]}]}]}]}]}
                    ]
                }
            ]
        },
    ],
)
def test_a_value_that_lies_about_itself_is_refused(packed):
    with pytest.raises(wire.BrokenFrame):
        wire.unpack(packed, b"\0" * 8)


@pytest.mark.parametrize("name", wire.DTYPES)
def test_every_dtype_arrives_as_it_was_sent(name):
    tensor = torch.arange(6).reshape(2, 3).to(wire.DTYPES[name])
    packed, data = wire.pack((tensor, torch.zeros(0, 3), tensor[0, 1]))
    whole, empty, single = wire.unpack(packed, data)
    assert torch.equal(whole, tensor) and whole.dtype == tensor.dtype
    assert empty.shape == (0, 3) and single.shape == () and torch.equal(single, tensor[0, 1])


def test_booleans_made_of_other_bytes_are_booleans():
    (mask,) = wire.unpack({"tuple": [{"tensor": ["bool", [3]]}]}, b"\x00\x01\xff")
    assert torch.equal(mask, torch.tensor([False, True, True]))
