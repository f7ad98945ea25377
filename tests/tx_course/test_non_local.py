"""Level 5: the non-local block and DANet against formulas written out, and convolution against PyTorch's own.

A new block is the identity, which hides every error inside it, so most tests first draw all parameters.
"""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tx_course.attention import attend
from tx_course.non_local import (
    ChannelAttention,
    Concatenation,
    DotProduct,
    EmbeddedGaussian,
    Gaussian,
    NonLocalBlock,
    PositionAttention,
    convolution_as_attention,
    effective_field,
    places,
    receptive_field,
    subsample,
)

PAIRWISE = (Gaussian, EmbeddedGaussian, DotProduct, Concatenation)
PLACES = {"1d": (7,), "2d": (4, 6), "3d": (3, 4, 6)}
CLOSE = {"atol": 1e-12, "rtol": 1e-12}


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawn(module):
    """The module in float64 with every number of its state random, γ and the last layer too."""
    module = module.double().eval()
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if "running" in name:
                buffer.copy_(draw(*buffer.shape, seed=50).abs() + 0.5)
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=100 + seed) * 0.7)
    return module


def block(pairwise=EmbeddedGaussian, pool=1):
    """A block of 6 channels; the Gaussian compares them as they are, so their value may have any size."""
    return drawn(NonLocalBlock(6, pairwise, d_inner=4, pool=pool))


BLOCKS = {
    **{pairwise.__name__: partial(block, pairwise) for pairwise in PAIRWISE},
    "PositionAttention": lambda: drawn(PositionAttention(6, d_inner=2)),
    "ChannelAttention": lambda: drawn(ChannelAttention()),
}
every_block = pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
every_shape = pytest.mark.parametrize("shape", PLACES.values(), ids=PLACES)


def formula(pairwise, x_i, x_j):
    """f(x_i, x_j) of one pair, as the paper writes it, before it is normalised."""
    if isinstance(pairwise, Gaussian):
        return (x_i @ x_j).exp()
    theta, phi = pairwise.query(x_i), pairwise.key(x_j)
    if isinstance(pairwise, EmbeddedGaussian):
        return (theta @ phi).exp()
    if isinstance(pairwise, DotProduct):
        return theta @ phi
    return F.relu(pairwise.readout @ torch.cat([theta, phi]))


@every_shape
@pytest.mark.parametrize("pool", [1, 2], ids=["whole", "sub-sampled"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_non_local_block_equals_the_papers_formula_one_pair_at_a_time(pairwise, pool, shape):
    module, x = block(pairwise, pool), draw(2, 6, *shape)
    result, weights = module(x, weights=True)
    normalised_by_sum = pairwise in (Gaussian, EmbeddedGaussian)
    for sample in range(2):
        context = places(subsample(x, pool))[sample]
        for i, x_i in enumerate(places(x)[sample]):
            f = torch.stack([formula(module.pairwise, x_i, x_j) for x_j in context])
            f = f / (f.sum() if normalised_by_sum else len(context))
            y = sum(f_j * module.value(x_j) for f_j, x_j in zip(f, context, strict=True))
            torch.testing.assert_close(weights[sample, i], f, **CLOSE)
            z = module.norm(module.output(y)[None])[0] + x_i
            torch.testing.assert_close(places(result)[sample, i], z, **CLOSE)


def test_embedded_gaussian_is_attend_in_values_and_gradients():
    module, x = block(), draw(2, 6, 4, 5)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    row = places(theirs)
    query, key, value = module.pairwise.query(row), module.pairwise.key(row), module.value(row)
    # The fused kernel divides by √d, which the paper's block does not.
    heard = attend(query * query.size(-1) ** 0.5, key, value)
    expected = theirs + module.norm(module.output(heard).transpose(1, 2)).reshape(x.shape)
    result = module(mine)
    torch.testing.assert_close(result, expected, **CLOSE)
    upstream = draw(*x.shape, seed=1)
    gradients = [
        torch.autograd.grad(y, [start, *module.parameters()], upstream)
        for y, start in ((result, mine), (expected, theirs))
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@every_shape
@every_block
def test_a_new_block_is_the_identity_and_its_gate_can_still_learn(make, shape):
    trained = make()
    new = {
        PositionAttention: lambda: PositionAttention(6),
        ChannelAttention: ChannelAttention,
        NonLocalBlock: lambda: NonLocalBlock(6, type(trained.pairwise)),
    }[type(trained)]().double()
    x = draw(2, 6, *shape)
    assert torch.equal(new(x), x)
    (new(x) * draw(*x.shape, seed=1)).sum().backward()
    gate = new.norm.weight if isinstance(new, NonLocalBlock) else new.gamma
    assert gate.grad.abs().max() > 0.01
    assert (trained(x) - x).abs().max() > 0.01


@every_block
def test_places_may_be_moved_about_and_the_result_moves_with_them(make):
    module, x = make(), draw(2, 6, 4, 5)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    moved = x.flatten(2)[..., order].view_as(x)
    torch.testing.assert_close(module(moved), module(x).flatten(2)[..., order].view_as(x), **CLOSE)


@every_block
def test_one_far_pixel_reaches_every_place(make):
    module, x = make(), draw(1, 6, 5, 5) / 4
    moved = x.clone()
    moved[..., 0, 0] += 1
    change = (module(moved) - module(x)).abs().amax(1)
    assert change.min() > 1e-5
    local = nn.Conv2d(6, 6, 3, padding=1).double()
    assert (local(moved) - local(x)).abs().amax(1)[0, 4, 4] == 0


def test_position_attention_equals_danets_formula():
    module, x = drawn(PositionAttention(6, d_inner=2)), draw(2, 6, 4, 5)
    row = x.flatten(2).transpose(1, 2)
    energy = module.pairwise.query(row) @ module.pairwise.key(row).transpose(1, 2)
    average = energy.softmax(-1) @ module.value(row)
    torch.testing.assert_close(
        module(x), x + module.gamma * average.transpose(1, 2).reshape(x.shape), **CLOSE
    )


def test_channel_attention_hears_the_most_alike_channel_most():
    module, x = drawn(ChannelAttention()), draw(2, 6, 4, 5) / 4
    energy = torch.einsum("bin,bjn->bij", x.flatten(2), x.flatten(2))
    expected = x + module.gamma * (energy.softmax(-1) @ x.flatten(2)).view_as(x)
    result, weights = module(x, weights=True)
    torch.testing.assert_close(result, expected, **CLOSE)
    assert torch.equal(weights.argmax(-1), energy.argmax(-1))
    published = (energy.amax(-1, keepdim=True) - energy).softmax(-1)
    assert torch.equal(published.argmax(-1), energy.argmin(-1))


def test_asking_for_weights_does_not_change_the_result():
    x = draw(2, 6, 4, 5)
    for make in BLOCKS.values():
        module = make()
        torch.testing.assert_close(module(x), module(x, weights=True)[0], **CLOSE)


def test_sub_sampling_hears_fewer_places_and_leaves_time_whole():
    for shape, heard in (((8,), 4), ((4, 6), 6), ((3, 4, 6), 18)):
        x = draw(1, 6, *shape)
        result, weights = block(pool=2)(x, weights=True)
        assert result.shape == x.shape
        assert weights.shape == (1, x[0, 0].numel(), heard)


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=4),
)
def test_receptive_field_equals_the_span_of_pixels_with_a_gradient(layers):
    kernels, strides, dilations = zip(*layers, strict=True)
    width = receptive_field(kernels, strides, dilations)
    network = nn.Sequential(
        *(nn.Conv1d(1, 1, k, s, dilation=d, bias=False) for k, s, d in layers),
    ).double()
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    x = torch.ones(1, 1, width, dtype=torch.float64, requires_grad=True)
    network(x).sum().backward()  # one output: a narrower input would have none
    assert network(x).numel() == 1
    assert x.grad[0, 0, 0] > 0 and x.grad[0, 0, -1] > 0


def test_the_effective_field_is_inside_the_theoretical_one_and_narrower():
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Conv2d(8 if i else 1, 8, 3, padding=1) for i in range(6)))
    field = effective_field(network, torch.randn(4, 1, 31, 31))
    half = receptive_field([3] * 6) // 2
    inside = field[15 - half : 16 + half, 15 - half : 16 + half].sum()
    middle = field[15 - half // 2 : 16 + half // 2, 15 - half // 2 : 16 + half // 2].sum()
    torch.testing.assert_close(inside, torch.tensor(1.0))
    assert middle > 0.5  # the middle quarter of the area has most of the influence


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 3)])
def test_convolution_as_attention_equals_conv2d_in_values_and_gradients(kernel):
    x, weight, bias = draw(2, 3, 6, 7), draw(4, 3, *kernel, seed=1), draw(4, seed=2)
    upstream = draw(2, 4, 6, 7, seed=3)
    both = []
    for function in (convolution_as_attention, partial(F.conv2d, padding="same")):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
        result = function(*leaves)
        both.append((result, *torch.autograd.grad(result, leaves, upstream)))
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_bad_input_says_what_was_expected_and_what_came():
    with pytest.raises(ValueError, match="odd sides, which has a middle, got 2 by 3"):
        convolution_as_attention(draw(1, 1, 4, 4), draw(1, 1, 2, 3))
    with pytest.raises(ValueError, match=r"one to three axes of places, got shape \(2, 6\)"):
        block()(draw(2, 6))
    with pytest.raises(ValueError, match="got d_inner=0"):
        NonLocalBlock(1)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        receptive_field([3, 3], strides=[1])


@every_block
def test_state_dict_round_trip_gives_the_same_numbers(make):
    module, x = make(), draw(1, 6, 4, 4)
    twin = make()
    with torch.no_grad():
        for tensor in twin.state_dict().values():
            tensor.zero_()
    twin.load_state_dict(module.state_dict())
    assert torch.equal(twin(x), module(x))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_block
def test_a_gpu_gives_the_same_numbers(make):
    x = draw(2, 6, 4, 5)
    torch.testing.assert_close(make().cuda()(x.cuda()).cpu(), make()(x), atol=1e-9, rtol=1e-9)
    x, weight = x[:, :3], draw(4, 3, 3, 3, seed=1)
    on_gpu = convolution_as_attention(x.cuda(), weight.cuda()).cpu()
    torch.testing.assert_close(on_gpu, F.conv2d(x, weight, padding="same"), atol=1e-9, rtol=1e-9)
