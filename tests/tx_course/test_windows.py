"""Windows and Swin: equal to transformers' Swin, and nothing crosses the seam of a shifted image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import SwinConfig as TheirConfig
from transformers import SwinForImageClassification

from tx_course.swin import PatchMerging, Swin, SwinConfig
from tx_course.windows import (
    SwinBlock,
    WindowAttention,
    relative_position_bias,
    relative_position_index,
    shifted_window_mask,
    window_partition,
    window_reverse,
)

SIZES = {
    "the course's": SwinConfig.small(classes=5),
    "three stages of colours": SwinConfig(
        32, 3, 4, patch=2, d_model=8, depths=(2, 1, 2), heads=(2, 2, 4), window=4
    ),
}


def paired_parameters(ours, theirs):
    """Pair every parameter of our Swin with the one of transformers' it should equal."""
    stages = theirs.swin.encoder.layers
    their_layers = [m for s in stages for m in (*s.blocks, s.downsample) if m is not None]
    modules = [
        (ours.patches, theirs.swin.embeddings.patch_embeddings.projection),
        (ours.patches_norm, theirs.swin.embeddings.norm),
        (ours.norm, theirs.swin.layernorm),
        (ours.output, theirs.classifier),
    ]
    pairs = []
    for a, b in zip(ours.layers, their_layers, strict=True):
        if isinstance(a, PatchMerging):
            modules += [(a.norm, b.norm), (a.reduction, b.reduction)]
            continue
        inner, outer = a.window_attention.attention, b.attention
        pairs.append((a.window_attention.table, outer.relative_position_bias.relative_position_bias_table))
        modules += [
            (a.attention_residual.norm, b.layernorm_before),
            (a.feed_forward_residual.norm, b.layernorm_after),
            (a.feed_forward[0], b.mlp.fc1),
            (a.feed_forward[2], b.mlp.fc2),
            *zip(
                (inner.query, inner.key, inner.value, inner.output),
                (outer.q_proj, outer.k_proj, outer.v_proj, outer.o_proj),
                strict=True,
            ),
        ]
    return pairs + [p for a, b in modules for p in zip(a.parameters(), b.parameters(), strict=True)]


@pytest.mark.parametrize("config", SIZES.values(), ids=SIZES)
def test_a_whole_swin_equals_transformers_in_logits_and_every_gradient(config):
    torch.manual_seed(0)
    ours = Swin(config).double()
    theirs = SwinForImageClassification(
        TheirConfig(
            image_size=config.image_size,
            patch_size=config.patch,
            num_channels=config.channels,
            num_labels=config.classes,
            embed_dim=config.d_model,
            depths=list(config.depths),
            num_heads=list(config.heads),
            window_size=config.window,
            drop_path_rate=0.0,
            attn_implementation="sdpa",
        )
    ).double()
    pairs = paired_parameters(ours, theirs)
    assert {id(a) for a, _ in pairs} == {id(p) for p in ours.parameters()}
    assert {id(b) for _, b in pairs} == {id(p) for p in theirs.parameters()}
    with torch.no_grad():
        for a, b in pairs:
            b.copy_(a.normal_(std=0.3))
    images = torch.randn(2, config.channels, config.image_size, config.image_size, dtype=torch.float64)
    logits, expected = ours(images), theirs(images).logits
    torch.testing.assert_close(logits, expected, atol=1e-9, rtol=1e-9)
    (logits**2).sum().backward()
    (expected**2).sum().backward()
    for a, b in pairs:
        torch.testing.assert_close(a.grad, b.grad, atol=1e-8, rtol=1e-8)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_reversing_a_partition_gives_the_grid_back(size, down, across, batch):
    grid = torch.randn(batch, down * size, across * size, 3)
    windows = window_partition(grid, size)
    assert windows.shape == (batch, down * across, size * size, 3)
    assert torch.equal(window_reverse(windows, down * size, across * size), grid)


def home_window(length, size, shift):
    """The number of the window each place belongs to when windows begin at ``shift`` and nothing wraps."""
    return (torch.arange(length) - shift).div(size, rounding_mode="floor")


@pytest.mark.parametrize(("size", "shift"), [(2, 1), (3, 1), (4, 2), (4, 3)])
def test_the_mask_allows_just_the_cells_of_one_unwrapped_window(size, shift):
    rows, columns = 2 * size, 3 * size
    home = 100 * home_window(rows, size, shift)[:, None] + home_window(columns, size, shift)
    rolled = home.roll((-shift, -shift), dims=(0, 1))
    windows = window_partition(rolled[None, :, :, None], size)[0]
    assert torch.equal(shifted_window_mask(rows, columns, size, shift), windows == windows.transpose(1, 2))


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_a_shifted_block_hears_its_own_window_and_nothing_across_the_seam(shift):
    torch.manual_seed(1)
    block = SwinBlock(d_model=4, heads=2, size=4, shift=shift).double()
    with torch.no_grad():
        for weight in block.window_attention.attention.parameters():
            weight.mul_(8)  # scores so large that one wrong key would take all the weight
    grid = torch.randn(1, 8, 8, 4, dtype=torch.float64, requires_grad=True)
    out = block(grid)
    home = 100 * home_window(8, 4, shift)[:, None] + home_window(8, 4, shift)
    for row, column in [(0, 0), (0, 7), (3, 4), (7, 7)]:
        heard = torch.autograd.grad(out[0, row, column].sum(), grid, retain_graph=True)[0][0].abs().sum(-1)
        assert torch.equal(heard > 0, home == home[row, column])


def test_relative_positions_share_a_number_just_when_offsets_are_equal():
    size = 3
    index = relative_position_index(size)
    place = [(r, c) for r in range(size) for c in range(size)]
    number = {}
    for q, (qr, qc) in enumerate(place):
        for k, (kr, kc) in enumerate(place):
            assert number.setdefault((qr - kr, qc - kc), index[q, k].item()) == index[q, k].item()
    assert sorted(number.values()) == list(range((2 * size - 1) ** 2))


def test_window_attention_moves_with_the_content_inside_a_window_except_for_its_bias():
    torch.manual_seed(2)
    layer = WindowAttention(d_model=8, heads=2, size=2).double()
    windows = torch.randn(1, 3, 4, 8, dtype=torch.float64)
    order = torch.tensor([2, 0, 3, 1])
    assert not torch.allclose(layer(windows)[:, :, order], layer(windows[:, :, order]))
    torch.nn.init.constant_(layer.table, 0.7)
    torch.testing.assert_close(layer(windows)[:, :, order], layer(windows[:, :, order]))


def test_the_bias_of_a_pair_is_the_tables_row():
    table, index = torch.randn(25, 4), relative_position_index(3)
    bias = relative_position_bias(table, index)
    assert bias.shape == (4, 9, 9)
    assert bias[2, 5, 7] == table[index[5, 7], 2]


def test_merging_puts_each_two_by_two_into_one_cell():
    merge = PatchMerging(1).double()
    merge.norm = torch.nn.Identity()
    merge.reduction = torch.nn.Identity()
    grid = torch.arange(8.0, dtype=torch.float64).view(1, 2, 4, 1)
    assert merge(grid).tolist() == [[[[0, 4, 1, 5], [2, 6, 3, 7]]]]


def test_grids_that_do_not_fit_are_refused_with_their_sizes():
    with pytest.raises(ValueError, match="5 by 4"):
        window_partition(torch.zeros(1, 5, 4, 2), 2)
    with pytest.raises(ValueError, match="fill 4 by 4"):
        window_reverse(torch.zeros(1, 3, 4, 2), 4, 4)
    with pytest.raises(ValueError, match="got 2"):
        SwinBlock(d_model=4, heads=2, size=2, shift=2)
    with pytest.raises(ValueError, match="even sides"):
        PatchMerging(2)(torch.zeros(1, 3, 4, 2))
    with pytest.raises(ValueError, match="side of 14"):
        Swin(SwinConfig(28, 1, 10, patch=2, d_model=8, depths=(2,), heads=(2,), window=4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_logits():
    model, images = Swin(SwinConfig.small()).double(), torch.randn(2, 1, 28, 28, dtype=torch.float64)
    expected = model(images)
    torch.testing.assert_close(model.cuda()(images.cuda()).cpu(), expected, atol=1e-9, rtol=1e-9)
