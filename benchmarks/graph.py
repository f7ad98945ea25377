"""``GraphAttention`` and ``GraphAttentionV2`` against torch_geometric's ``GATConv`` and ``GATv2Conv``.

Time and peak memory at two sizes; then memory along edges and with a dense mask, as the edges grow.
Run ``python benchmarks/graph.py`` (``--write`` puts the tables into benchmarks/README.md).
"""

from functools import partial

import torch
from measure import machine, peak_mib, ratios, report, table, with_backward, without_gradients
from torch_geometric.nn import GATConv, GATv2Conv

from tx_course.graph import GraphAttention, GraphAttentionV2, edge_mask, with_self_loops

SIZES = ((2_700, 10_000, 128), (100_000, 1_000_000, 32))  # nodes, edges, features
HEADS, D = 8, 8
PEERS = {"GAT": (GraphAttention, GATConv), "GATv2": (GraphAttentionV2, GATv2Conv)}


def graph(nodes, edges, features):
    """Return random features, and random edges with self-loops."""
    pairs = torch.randint(nodes, (2, edges))
    return torch.randn(nodes, features, requires_grad=True), with_self_loops(pairs, nodes)


def against_torch_geometric():
    rows = []
    for name, (ours, theirs) in PEERS.items():
        for size in SIZES:
            x, edges = graph(*size)
            runs = {
                "ours": partial(ours(size[2], D, HEADS), x, edges),
                "theirs": partial(theirs(size[2], D, HEADS, add_self_loops=False), x, edges),
            }
            forward = ratios({k: without_gradients(run) for k, run in runs.items()}, "ours")
            training = ratios({k: with_backward(run) for k, run in runs.items()}, "ours")
            memory = {k: peak_mib(with_backward(run)) for k, run in runs.items()}
            rows.append(
                [
                    name,
                    f"{size[0]:,}, {size[1]:,}",
                    f"{forward['theirs']:.2f} / {training['theirs']:.2f}",
                    f"{memory['ours']:.0f}",
                    f"{memory['theirs']:.0f}",
                ]
            )
    return table(["", "nodes, edges", "time ÷ ours, f / f + b", "our MiB, f + b", "their MiB, f + b"], rows)


def growth():
    layer, rows = GraphAttention(32, D, HEADS), []
    for nodes in (500, 1_000, 2_000, 4_000):
        x, edges = graph(nodes, 10 * nodes, 32)
        mask = edge_mask(edges, nodes)
        along = peak_mib(with_backward(partial(layer, x, edges)))
        dense = peak_mib(with_backward(partial(layer.dense, x, mask)))
        rows.append([f"{nodes:,}", f"{along:.1f}", f"{dense:.0f}"])
    return table(["nodes (10 edges each)", "edge list, MiB", "dense mask, MiB"], rows)


def main():
    torch.manual_seed(0)
    report(
        "graph",
        f"### `GraphAttention`\n\n{HEADS} heads of {D} features, self-loops included ({machine()}, float32); "
        f"a time above 1 means that ours is faster:\n\n{against_torch_geometric()}\n\n{growth()}",
    )


if __name__ == "__main__":
    main()
