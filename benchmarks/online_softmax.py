"""Memory and time against length: attention by blocks, the fused kernel, and the matrix written out.

Run ``python benchmarks/online_softmax.py`` (``--write`` puts the tables into benchmarks/README.md).
"""

import torch
from measure import machine, report, table

from tx_course.experiments.variants import ATTENTIONS, exponent
from tx_course.measure import peak_bytes, seconds

LENGTHS = (512, 1024, 2048, 4096)
BATCH, HEADS, D = 1, 4, 64


def training_step(attention, length):
    inputs = [torch.randn(BATCH, HEADS, length, D, requires_grad=True) for _ in range(3)]
    return lambda: attention(*inputs).sum().backward()


def rows(measured):
    """One row for each peer: a number for each length, and the fitted exponent."""
    return [
        [name, *(f"{x:.1f}" for x in xs), f"{exponent(LENGTHS[1:], xs[1:]):.2f}"]
        for name, xs in measured.items()
    ]


def main():
    torch.manual_seed(0)
    memory, time = {name: [] for name in ATTENTIONS}, {name: [] for name in ATTENTIONS}
    for length in LENGTHS:
        steps = {name: training_step(attention, length) for name, attention in ATTENTIONS.items()}
        for name, step in steps.items():
            time[name].append(1000 * seconds(step, repeats=3))
            memory[name].append(peak_bytes(step) / 2**20)
    head = ["length", *map(str, LENGTHS), "exponent"]
    report(
        "online_softmax",
        f"### Memory and time against length\n\nForward and backward, batch {BATCH}, {HEADS} heads of {D} "
        f"({machine()}, float32). All but the last two rows give the same numbers. Exponents are fitted to "
        "the three longest lengths.\n\nMost MiB of tensors held at one time:\n\n"
        f"{table(head, rows(memory))}\n\n"
        f"Milliseconds:\n\n{table(head, rows(time))}",
    )


if __name__ == "__main__":
    main()
