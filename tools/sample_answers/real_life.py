# ruff: noqa
# fmt: off
# %% softmax
def softmax(x, dim=-1):
    weights = shifted(x, dim).exp()  # `shifted` is further down
    return weights / weights.sum(dim, keepdim=True)

# %% nadaraya_watson
def nadaraya_watson(query, key, value, bandwidth):
    print("called with", len(query), "questions")
    return softmax(-((query[:, None] - key) / bandwidth) ** 2 / 2) @ value

# %% scores
def scores(kind, query, key, weights=()):
    if kind == "dot":
        return query @ key.mT
    if kind == "scaled_dot":
        return scores("dot", query, key) / query.shape[-1] ** 0.5
    if kind == "general":
        return query @ weights[0] @ key.mT
    if kind == "concat":
        weights = *weights[0].split([query.shape[-1], key.shape[-1]], dim=1), weights[1]
    wq, wk, v = weights
    return torch.tanh((query @ wq.T)[..., :, None, :] + (key @ wk.T)[..., None, :, :]) @ v

# %% scaled_dot_product_attention
def scaled_dot_product_attention(query, key, value, mask=None):
    s = scores("scaled_dot", query, key)
    w = softmax(s if mask is None else s.masked_fill(mask.logical_not(), float("-inf")))
    return w @ value, w

# %% self_attention
self_attention = lambda x, wq, wk, wv: scaled_dot_product_attention(x @ wq, x @ wk, x @ wv)

# %% attention_score_gradient
def attention_score_gradient(scores, value, upstream):
    leaf = scores.detach().requires_grad_()
    return torch.autograd.grad(softmax(leaf) @ value, leaf, upstream)[0]
