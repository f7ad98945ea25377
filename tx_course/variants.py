"""One family (level 9): every letter of the sentence is a design choice. All the choices, from one import.

| the letter | the choice | where it is |
|---|---|---|
| neighbourhood N | windows, shifted windows | ``windows.py``; the whole model in ``swin.py`` |
| neighbourhood N | local, strided, global, block-sparse | ``local.py`` |
| score f | rotated (RoPE), penalised by distance (ALiBi) | ``positions.py`` |
| score f | a product of features, so that the order of products may change | ``linear.py`` |
| normaliser C | one key drawn, sparsemax | ``hard.py`` |
| none: the same numbers | keys in blocks, nothing stored | ``online_softmax.py`` |
| keys k, values v | shared by heads, kept while writing | ``decoding.py`` |
| all weights | learned once, whatever the content | ``patch_mlp.py`` |
"""

from tx_course.decoding import GroupedQueryAttention, KVCache, cached_attention, cached_logits, generate
from tx_course.hard import (
    gumbel_softmax,
    hard_attention,
    sample_key,
    score_function_loss,
    sparsemax,
    sparsemax_attention,
    straight_through,
)
from tx_course.linear import causal_linear_attention, linear_attention
from tx_course.local import block_mask, global_mask, local_attention, local_mask, strided_mask
from tx_course.online_softmax import online_softmax_attention
from tx_course.patch_mlp import MixerConfig, MlpMixer, PatchMlp, PatchMlpConfig
from tx_course.positions import alibi, alibi_slopes, rope
from tx_course.swin import Swin, SwinConfig
from tx_course.windows import (
    SwinBlock,
    relative_position_bias,
    relative_position_index,
    shifted_window_mask,
    window_partition,
    window_reverse,
)

__all__ = [
    "GroupedQueryAttention",
    "KVCache",
    "MixerConfig",
    "MlpMixer",
    "PatchMlp",
    "PatchMlpConfig",
    "Swin",
    "SwinBlock",
    "SwinConfig",
    "alibi",
    "alibi_slopes",
    "block_mask",
    "cached_attention",
    "cached_logits",
    "causal_linear_attention",
    "generate",
    "global_mask",
    "gumbel_softmax",
    "hard_attention",
    "linear_attention",
    "local_attention",
    "local_mask",
    "online_softmax_attention",
    "relative_position_bias",
    "relative_position_index",
    "rope",
    "sample_key",
    "score_function_loss",
    "shifted_window_mask",
    "sparsemax",
    "sparsemax_attention",
    "straight_through",
    "strided_mask",
    "window_partition",
    "window_reverse",
]
