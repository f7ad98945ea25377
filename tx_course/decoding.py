"""Writing one token at a time: a cache of keys and values, and heads that share them (level 9).

Axes: b batch, h heads, g groups of heads, q new positions, k all positions so far, d features per head, m
features of the model, v vocabulary.

A causal model's keys and values of the past never change, so a decoder that keeps them does the work of one
token per token. What it then spends its time on is reading the cache, which is why heads share keys and
values (Shazeer 2019; Ainslie et al. 2023).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tx_course.attention import attend
from tx_course.bert import Gpt
from tx_course.multi_head import MultiHeadAttention, merge_heads, split_heads


class KVCache:
    """Room for the keys and values of ``length`` positions, set aside once and filled from the front.

    ``heads`` counts heads of keys (the groups, where heads share them). ``used`` is how many positions are
    filled. The cache is for inference: it does not carry gradients.

    >>> cache = KVCache(batch=1, heads=2, length=8, d=4)
    >>> keys, values = cache.append(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))
    >>> keys.shape, cache.used
    (torch.Size([1, 2, 3, 4]), 3)
    """

    def __init__(
        self,
        batch: int,
        heads: int,
        length: int,
        d: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        self.keys = torch.zeros(batch, heads, length, d, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.used = 0

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store ``key`` and ``value`` (b, h, q, d) of new positions; return those of all positions so far.

        The result is a view of the cache, (b, h, k, d): nothing old is copied.
        Raises ValueError if the cache has no room left.
        """
        end = self.used + key.size(-2)
        if end > self.keys.size(-2):
            raise ValueError(
                f"expected at most {self.keys.size(-2)} positions in this cache, got {end}; make it longer"
            )
        self.keys[:, :, self.used : end] = key.detach()
        self.values[:, :, self.used : end] = value.detach()
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class GroupedQueryAttention(nn.Module):
    """Attention whose ``heads`` queries share the keys and values of ``groups`` heads (Ainslie et al. 2023).

    As many groups as heads is multi-head attention; one group is multi-query attention (Shazeer 2019). Head i
    listens to group i // (heads / groups).
    Raises ValueError if ``heads`` does not divide ``d_model`` or ``groups`` does not divide ``heads``.

    >>> GroupedQueryAttention(d_model=8, heads=4, groups=2)(torch.zeros(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, d_model: int, heads: int, groups: int):
        super().__init__()
        if d_model % heads or heads % groups:
            raise ValueError(
                "expected heads that divide d_model and groups that divide heads, "
                f"got d_model={d_model}, heads={heads}, groups={groups}"
            )
        self.heads = heads
        self.groups = groups
        shared = d_model // heads * groups
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, shared)
        self.value = nn.Linear(d_model, shared)
        self.output = nn.Linear(d_model, d_model)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None, weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return what each position of ``x`` (b, q, m) hears, (b, q, m).

        ``mask`` broadcasts to (b, h, q, k). With a ``cache``, ``x`` holds new positions only and k counts the
        old ones too. With ``weights=True`` the result is a pair whose second part is (b, h, q, k).
        """
        key = split_heads(self.key(x), self.groups)  # (b, g, q, d)
        value = split_heads(self.value(x), self.groups)
        if cache is not None:
            key, value = cache.append(key, value)  # (b, g, k, d)
        if mask is not None:
            batch = mask.size(0) if mask.dim() == 4 else 1
            mask = self._side_by_side(mask.expand(batch, self.heads, x.size(1), key.size(-2)))
        query = self._side_by_side(split_heads(self.query(x), self.heads))  # (b, g, h / g · q, d)
        heard = attend(query, key, value, mask, weights=weights)
        if weights:
            return self.output(merge_heads(self._apart(heard[0]))), self._apart(heard[1])
        return self.output(merge_heads(self._apart(heard)))

    def _side_by_side(self, x: Tensor) -> Tensor:
        """Line up the queries (b, h, q, …) of a group's heads, (b, g, h / g · q, …), so no key is copied."""
        return x.unflatten(1, (self.groups, -1)).flatten(2, 3)

    def _apart(self, x: Tensor) -> Tensor:
        """Undo ``_side_by_side``."""
        return x.unflatten(2, (self.heads // self.groups, -1)).flatten(1, 2)


def cached_attention(attention: MultiHeadAttention, x: Tensor, cache: KVCache) -> Tensor:
    """Run self-attention for the new positions ``x`` (b, q, m) of a causal model whose past is in ``cache``.

    The result (b, q, m) is what a full causal pass gives at those positions.

    >>> layer, x = MultiHeadAttention(d_model=8, heads=2), torch.zeros(1, 3, 8)
    >>> cached_attention(layer, x, KVCache(batch=1, heads=2, length=4, d=4)).shape
    torch.Size([1, 3, 8])
    """
    query = split_heads(attention.query(x), attention.heads)  # (b, h, q, d)
    key, value = cache.append(
        split_heads(attention.key(x), attention.heads), split_heads(attention.value(x), attention.heads)
    )  # (b, h, k, d)
    mask = None if x.size(1) == 1 else future_mask(x.size(1), cache.used, x.device)
    return attention.output(merge_heads(attend(query, key, value, mask)))


def future_mask(queries: int, keys: int, device: torch.device | str | None = None) -> Tensor:
    """Hide the future from the last ``queries`` of ``keys`` positions: a causal mask's last rows, (q, k).

    >>> future_mask(2, 3).int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def new_caches(gpt: Gpt, batch: int, length: int) -> list[KVCache]:
    """Return one empty cache for each layer of ``gpt``, with room for ``length`` positions.

    >>> from tx_course.bert import GptConfig
    >>> len(new_caches(Gpt(GptConfig.small(10)), batch=1, length=8))
    2
    """
    config, weight = gpt.config, gpt.word.weight
    d = config.d_model // config.heads
    return [KVCache(batch, config.heads, length, d, weight.dtype, weight.device) for _ in gpt.layers]


def cached_logits(gpt: Gpt, tokens: Tensor, caches: list[KVCache]) -> Tensor:
    """Return logits (b, v) of the token after the new ``tokens`` (b, q), whose past is in ``caches``.

    They equal the last position's logits of a full pass over past and new tokens.

    >>> from tx_course.bert import GptConfig
    >>> gpt = Gpt(GptConfig.small(10))
    >>> cached_logits(gpt, torch.tensor([[1, 2, 3]]), new_caches(gpt, batch=1, length=8)).shape
    torch.Size([1, 10])
    """
    start = caches[0].used
    position = torch.arange(start, start + tokens.size(1), device=tokens.device)
    x = gpt.word(tokens) + gpt.position(position)  # (b, q, m)
    for layer, cache in zip(gpt.layers, caches, strict=True):
        x = layer.attention_residual(
            x, lambda x, layer=layer, cache=cache: cached_attention(layer.attention, x, cache)
        )
        x = layer.feed_forward_residual(x, layer.feed_forward)
    return F.linear(gpt.norm(x[:, -1]), gpt.word.weight)


@torch.no_grad()
def generate(gpt: Gpt, prompt: Tensor, steps: int) -> Tensor:
    """Append the likeliest next token to ``prompt`` (b, q), ``steps`` times: (b, q + steps).

    Set the model to evaluation mode first. Raises ValueError if the result would be longer than the model's
    ``max_length``.

    >>> from tx_course.bert import GptConfig
    >>> generate(Gpt(GptConfig.small(10)).eval(), torch.tensor([[1, 2]]), steps=3).shape
    torch.Size([1, 5])
    """
    length = prompt.size(1) + steps
    if length > gpt.config.max_length:
        raise ValueError(f"expected at most {gpt.config.max_length} tokens in all, got {length}")
    caches = new_caches(gpt, len(prompt), length)
    tokens = new = prompt
    for _ in range(steps):
        new = cached_logits(gpt, new, caches).argmax(dim=-1, keepdim=True)  # (b, 1)
        tokens = torch.cat([tokens, new], dim=1)
    return tokens
