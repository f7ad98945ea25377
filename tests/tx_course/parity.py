"""Comparing a model with an independent one: the same weights and inputs, then outputs and every gradient."""

import pytest
import torch

TOLERANCE = 1e-9  # float64: a wrong epsilon or the other GELU is a million times larger


def gpu(test):
    """Mark a test that needs a CUDA device, and skip it where there is none."""
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")(test))


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomise(model, seed=0):
    """Make the model float64 with random parameters throughout: no bias is 0 and no norm is 1."""
    generator = torch.Generator().manual_seed(seed)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            size = parameter.size(-1) ** -0.5 if parameter.dim() > 1 else 0.3
            parameter.copy_(size * noise + (parameter == 1))
    return model


def close(ours, theirs, what):
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=TOLERANCE, msg=lambda m: f"{what}: {m}")


def assert_same(ours, theirs, rename, our_run, their_run, inputs=()):
    """Check that two modules are one function.

    ``rename`` gives a dictionary of our parameters the other's names; the weights go through it, and so do
    the gradients. A run takes the module and the inputs and returns a tensor or several.
    """
    randomise(ours)
    theirs.double().load_state_dict(rename(ours.state_dict()))
    results = []
    for module, run in ((ours, our_run), (theirs, their_run)):
        own = [x.clone().requires_grad_() for x in inputs]
        out = run(module, *own)
        out = out if isinstance(out, tuple) else (out,)
        sum((x * draw(*x.shape, seed=i)).sum() for i, x in enumerate(out)).backward()
        results.append((out, [x.grad for x in own]))
    (our_out, our_input_gradients), (their_out, their_input_gradients) = results
    for i, (a, b) in enumerate(zip(our_out, their_out, strict=True)):
        close(a, b, f"output {i}")
    for i, (a, b) in enumerate(zip(our_input_gradients, their_input_gradients, strict=True)):
        close(a, b, f"gradient of input {i}")
    gradients = rename(
        {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in ours.named_parameters()}
    )
    for name, parameter in theirs.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        close(gradients[name], expected, f"gradient of {name}")


def renamed(weights, names):
    """Return ``weights`` with each (old, new) piece of ``names`` replaced, in order, in every name."""
    result = {}
    for name, weight in weights.items():
        for old, new in names:
            name = name.replace(old, new)
        result[name] = weight
    return result


def packed(weights, attentions):
    """Pack query, key and value as PyTorch's MultiheadAttention does; ``attentions`` are (ours, theirs)."""
    weights = dict(weights)
    for ours, theirs in attentions:
        for kind in ("weight", "bias"):
            parts = [weights.pop(f"{ours}{part}.{kind}") for part in ("query", "key", "value")]
            weights[f"{theirs}in_proj_{kind}"] = torch.cat(parts)
            weights[f"{theirs}out_proj.{kind}"] = weights.pop(f"{ours}output.{kind}")
    return weights
