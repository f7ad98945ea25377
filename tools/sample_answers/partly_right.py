# ruff: noqa
# fmt: off
# %% softmax
def softmax(x, dim=-1):
    return torch.exp(x) / torch.exp(x).sum(dim, keepdim=True)

# %% nadaraya_watson
def nadaraya_watson(query, key, value, bandwidth):
    distance = query[:, None] - key[None, :]
    return torch.softmax(-distance**2 / bandwidth**2, dim=-1) @ value

# %% scores
def scores(kind, query, key, weights=()):
    if kind == "dot":
        return query @ key.transpose(-2, -1)
    if kind == "scaled_dot":
        return query @ key.transpose(-2, -1) / query.size(-1)
    if kind == "general":
        return query @ weights[0] @ key.transpose(-2, -1)
    raise NotImplementedError("not written yet")

# %% scaled_dot_product_attention
def scaled_dot_product_attention(query, key, value, mask=None):
    weights = torch.softmax(query @ key.transpose(-2, -1) / math.sqrt(query.size(-1)), dim=-1)
    if mask is not None:
        weights = weights * mask
    return weights @ value, weights

# %% self_attention
def self_attention(x, query_weight, key_weight, value_weight):
    query, key, value = x @ query_weight, x @ key_weight, x @ value_weight
    weights = torch.softmax(query @ key.transpose(-2, -1) / math.sqrt(query.size(-1)), dim=-1)
    return weights @ value, weights
