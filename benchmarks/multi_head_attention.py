"""``MultiHeadAttention`` against PyTorch's module, the attention of transformers' BERT, and x-transformers.

All do self-attention over the same features, projections included.
Run ``python benchmarks/multi_head_attention.py`` (``--write`` puts the table into benchmarks/README.md).
"""

from functools import partial

import torch
from measure import machine, ratios, report, table, with_backward, without_gradients
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertSelfAttention, BertSelfOutput
from x_transformers.x_transformers import Attention

from tx_course.multi_head import MultiHeadAttention

SIZES = ((32, 4, 128), (8, 8, 512), (1, 8, 2048))  # b, h, n
D = 64
OURS = "MultiHeadAttention"


def hugging_face(m, h):
    """Return BERT's attention and the linear layer after it, without the residual that comes next."""
    config = BertConfig(hidden_size=m, num_attention_heads=h, attn_implementation="sdpa")
    attention, output = BertSelfAttention(config).eval(), BertSelfOutput(config).dense
    return lambda x: output(attention(x)[0])


def peers(b, h, n):
    """Return one run of each peer on the same features."""
    m = h * D
    x = torch.randn(b, n, m, requires_grad=True)
    torch_module = torch.nn.MultiheadAttention(m, h, batch_first=True)
    return {
        OURS: partial(MultiHeadAttention(m, h), x),
        "torch.nn": lambda: torch_module(x, x, x, need_weights=False)[0],
        "transformers (sdpa)": partial(hugging_face(m, h), x),
        "x-transformers (flash)": partial(Attention(dim=m, heads=h, dim_head=D, flash=True), x),
    }


def main():
    torch.manual_seed(0)
    rows = []
    for b, h, n in SIZES:
        runs = peers(b, h, n)
        forward = ratios({name: without_gradients(run) for name, run in runs.items()}, OURS, seconds=12)
        training = ratios({name: with_backward(run) for name, run in runs.items()}, OURS, seconds=12)
        rows.append([f"{b}, {h}, {n}", *(f"{forward[name]:.2f} / {training[name]:.2f}" for name in runs)])
    report(
        "multi_head_attention",
        "### `MultiHeadAttention`\n\nTime ÷ ours, forward / forward with backward "
        f"({machine()}, float32); above 1 means that ours is faster:\n\n"
        f"{table(['b, h, n (d = 64)', *runs], rows)}\n\n"
        "x-transformers has no biases.",
    )


if __name__ == "__main__":
    main()
