# ruff: noqa
# fmt: off
# %% softmax
def softmax(x, dim=-1):
    return (x - x.logsumexp(dim, keepdim=True)).exp()

# %% nadaraya_watson
import numpy as np


def nadaraya_watson(query, key, value, bandwidth):
    query, key, value = (np.asarray(t) for t in (query, key, value))
    predictions = []
    for place in query:
        exponents = -0.5 * ((place - key) / bandwidth) ** 2
        kernel = np.exp(exponents - exponents.max())
        predictions.append(np.average(value, weights=kernel))
    return np.array(predictions)

# %% scores
def scores(kind, query, key, weights=()):
    if kind in ("dot", "scaled_dot"):
        dot = torch.einsum("...qd,...kd->...qk", query, key)
        return dot * query.shape[-1] ** -0.5 if kind == "scaled_dot" else dot
    if kind == "general":
        return torch.einsum("...qm,mn,...kn->...qk", query, *weights, key)
    if kind == "concat":
        joint, readout = weights
        m = query.shape[-1]
        weights = joint[:, :m], joint[:, m:], readout
    query_weight, key_weight, readout = weights
    asks = torch.einsum("am,...qm->...qa", query_weight, query).unsqueeze(-2)
    answers = torch.einsum("an,...kn->...ka", key_weight, key).unsqueeze(-3)
    return ((asks + answers).tanh() * readout).sum(-1)

# %% scaled_dot_product_attention
def scaled_dot_product_attention(query, key, value, mask=None):
    logits = torch.einsum("...qd,...kd->...qk", query / math.sqrt(query.shape[-1]), key)
    if mask is not None:
        logits = torch.where(mask, logits, torch.full_like(logits, -1e9))
    weights = torch.exp(logits - torch.logsumexp(logits, dim=-1, keepdim=True))
    return torch.einsum("...qk,...ke->...qe", weights, value), weights

# %% self_attention
def self_attention(x, query_weight, key_weight, value_weight):
    inner = query_weight @ key_weight.T / math.sqrt(query_weight.shape[1])
    logits = x @ inner @ x.mT
    weights = torch.exp(logits - torch.logsumexp(logits, dim=-1, keepdim=True))
    return weights @ (x @ value_weight), weights

# %% attention_score_gradient
def attention_score_gradient(scores, value, upstream):
    scores, value, upstream = (np.asarray(t) for t in (scores, value, upstream))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    jacobian = weights[..., :, None] * np.eye(weights.shape[-1]) - weights[..., :, None] * weights[..., None, :]
    return np.einsum("...qe,...je,...qjk->...qk", upstream, value, jacobian)
