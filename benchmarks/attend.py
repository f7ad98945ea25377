"""``attend`` against the formula written out, PyTorch's fused kernel and ``torch.nn.MultiheadAttention``.

Run ``python benchmarks/attend.py`` (``--write`` puts the tables into benchmarks/README.md).
"""

import math
from functools import partial

import torch
from measure import machine, peak_mib, ratios, report, table, with_backward, without_gradients
from torch.nn import functional as F

from tx_course.attention import attend

SIZES = ((32, 4, 128), (16, 4, 256), (8, 8, 512), (4, 8, 1024), (1, 8, 2048), (1, 4, 4096))  # b, h, n
D = 64


def naive(query, key, value):
    """The formula as most people write it."""
    return (query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))).softmax(-1) @ value


def explicit(query, key, value):
    """``attend`` when somebody asks for the weights."""
    return attend(query, key, value, weights=True)[0]


def multi_head(h, query, key, value):
    """PyTorch's module; it also projects in and out, which the others do not."""
    module = torch.nn.MultiheadAttention(h * D, h, batch_first=True)
    flat = [x.detach().transpose(1, 2).flatten(2).requires_grad_() for x in (query, key, value)]
    return lambda: module(*flat, need_weights=False)[0]


def measure(b, h, n):
    """Return the peers' runs at one size, forward only and forward with backward."""
    inputs = [torch.randn(b, h, n, D, requires_grad=True) for _ in range(3)]
    peers = {
        "fused kernel": partial(F.scaled_dot_product_attention, *inputs),
        "attend": partial(attend, *inputs),
        "attend with weights": partial(explicit, *inputs),
        "naive formula": partial(naive, *inputs),
        "MultiheadAttention": multi_head(h, *inputs),
    }
    return peers, {name: with_backward(run) for name, run in peers.items()}


def main():
    torch.manual_seed(0)
    time_rows, memory_rows = [], []
    for b, h, n in SIZES:
        forward, training = measure(b, h, n)
        forward = {name: without_gradients(run) for name, run in forward.items()}
        time_f, time_t = ratios(forward, "fused kernel"), ratios(training, "fused kernel")
        time_rows.append([f"{b}, {h}, {n}", *(f"{time_f[p]:.2f} / {time_t[p]:.2f}" for p in forward)])
        memory_rows.append(
            [
                f"{b}, {h}, {n}",
                *(f"{peak_mib(forward[p]):.0f} / {peak_mib(training[p]):.0f}" for p in forward),
            ]
        )
    head = ["b, h, n (d = 64)", *forward]
    report(
        "attend",
        "### `attend`\n\nTime ÷ PyTorch's fused kernel, forward / forward with backward "
        f"({machine()}, float32):\n\n"
        f"{table(head, time_rows)}\n\nPeak extra memory in MiB, forward / forward with backward:\n\n"
        f"{table(head, memory_rows)}\n\n"
        "`MultiheadAttention` also projects queries, keys, values and output, which the others do not.",
    )


if __name__ == "__main__":
    main()
