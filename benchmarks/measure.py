"""Compare programs on one machine: taken in turns, so that a busy moment hits all of them, and as ratios."""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

README = Path(__file__).with_name("README.md")
Run = Callable[[], object]


def ratios(peers: dict[str, Run], baseline: str, seconds: float = 6.0) -> dict[str, float]:
    """Return each peer's time divided by the baseline's: the median over rounds in which all take turns.

    Rounds go on for ``seconds``, but there are at least seven, after one round to warm up.
    """
    times: dict[str, list[float]] = {name: [] for name in peers}
    for run in peers.values():
        run()
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times[baseline]) < 7:
        names = list(peers) if len(times[baseline]) % 2 else list(reversed(peers))
        for name in names:
            start = time.perf_counter()
            peers[name]()
            times[name].append(time.perf_counter() - start)
    return {
        name: statistics.median(a / b for a, b in zip(own, times[baseline], strict=True))
        for name, own in times.items()
    }


def peak_mib(run: Run) -> float:
    """Return the most MiB that one ``run`` holds on the CPU beyond what was held before, scratch included."""
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    steps = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]")
    held = peak = 0
    for _, change in steps:
        held += change
        peak = max(peak, held)
    return peak / 2**20


def without_gradients(run: Run) -> Run:
    """Return ``run`` with no graph recorded."""
    return torch.no_grad()(run)


def with_backward(run: Callable[[], torch.Tensor]) -> Run:
    """Return ``run`` followed by the backward pass of the sum of its result."""
    return lambda: run().sum().backward()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def machine() -> str:
    """Say what was measured on."""
    return f"PyTorch {torch.__version__}, {torch.get_num_threads()} CPU threads"


def report(name: str, text: str) -> None:
    """Print ``text``; with ``--write`` on the command line, also put it between NAME's markers in README.md.

    Markers that are not there yet are added at the end.
    """
    print(text)
    if "--write" not in sys.argv:
        return
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    page = README.read_text(encoding="utf-8")
    if begin not in page:
        page = f"{page.rstrip()}\n\n{begin}\n{end}\n"
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    README.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
