"""Neighbourhoods that are windows of an image, and the Swin block (level 9; Liu et al. 2021).

Axes: b batch, r rows and c columns of the image's grid, w windows, q and k positions within one window (row
by row), h heads, m features of the model. Masks are boolean, True meaning "may attend".

Attention among all n cells of a grid costs n² scores; among the s² cells of its own window a cell costs s²,
whatever the image's size. Every second block moves the windows by half their size, so that news travels.
"""

import torch
from torch import Tensor, nn

from tx_course.multi_head import MultiHeadAttention
from tx_course.transformer import PreNorm, feed_forward


def window_partition(x: Tensor, size: int) -> Tensor:
    """Cut the grid ``x`` (b, r, c, m) into windows of ``size`` by ``size`` cells: (b, w, size · size, m).

    Windows are numbered row by row, and so are the cells within one (Liu et al. 2021, 3.2).
    Raises ValueError if ``size`` does not divide the rows and the columns.

    >>> window_partition(torch.arange(8).view(1, 2, 4, 1), 2).squeeze(-1).tolist()
    [[[0, 1, 4, 5], [2, 3, 6, 7]]]
    """
    rows, columns = x.shape[1:3]
    if rows % size or columns % size:
        raise ValueError(f"expected a grid that windows of {size} divide, got {rows} by {columns}; pad it")
    x = x.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # (b, r / size, size, c / size, size, m)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (b, w, q, m)


def window_reverse(windows: Tensor, rows: int, columns: int) -> Tensor:
    """Put ``windows`` (b, w, size · size, m) back into their grid (b, rows, columns, m).

    The inverse of ``window_partition``.
    Raises ValueError if the windows do not fill the grid.

    >>> grid = torch.arange(24).view(1, 4, 6, 1)
    >>> torch.equal(window_reverse(window_partition(grid, 2), 4, 6), grid)
    True
    """
    _, count, cells, _ = windows.shape
    size = round(cells**0.5)
    if size * size != cells or rows % size or columns % size or count * cells != rows * columns:
        raise ValueError(f"expected windows that fill {rows} by {columns}, got {count} of {cells} cells")
    grid = windows.unflatten(2, (size, size)).unflatten(1, (rows // size, columns // size))
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (b, rows, columns, m)


def shifted_window_mask(
    rows: int, columns: int, size: int, shift: int, device: torch.device | str | None = None
) -> Tensor:
    """Let cells of one window hear each other only if they were neighbours before the shift: (w, q, k).

    The grid is moved up and left by ``shift`` cells, and what falls off comes back at the other end. The last
    windows of a row or column then hold cells from opposite edges of the image; this mask keeps those apart
    (Liu et al. 2021, 3.2, efficient batch computation).

    >>> shifted_window_mask(1, 4, size=1, shift=0).all().item()
    True
    >>> shifted_window_mask(4, 4, size=2, shift=1).sum((1, 2)).tolist()
    [16, 8, 8, 4]
    """
    row, column = (_region(length, size, shift, device) for length in (rows, columns))
    region = 3 * row[:, None] + column  # (r, c)
    windows = window_partition(region[None, :, :, None], size)[0]  # (w, q, 1)
    return windows == windows.transpose(1, 2)  # (w, q, k)


def _region(length: int, size: int, shift: int, device: torch.device | str | None) -> Tensor:
    """Number each place along one axis after the shift: 0 untouched, 1 before the seam, 2 come round."""
    place = torch.arange(length, device=device)
    return (place >= length - size).long() + (place >= length - shift).long()


def relative_position_index(size: int) -> Tensor:
    """Number the pairs of cells of a window by how far apart they are: (q, k), from 0 to (2 size − 1)² − 1.

    Two pairs have the same number just when query and key are the same rows and columns apart, so they share
    one learned bias.

    >>> relative_position_index(2).tolist()
    [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    """
    place = torch.cartesian_prod(torch.arange(size), torch.arange(size))  # (q, 2): row and column
    apart = place[:, None] - place + size - 1  # (q, k, 2), each from 0 to 2 size − 2
    return apart[..., 0] * (2 * size - 1) + apart[..., 1]


def relative_position_bias(table: Tensor, index: Tensor) -> Tensor:
    """Look up each pair's bias in nats: ``table`` (pairs, h) and ``index`` (q, k) give (h, q, k).

    ``attend`` adds it to the scores (Liu et al. 2021, eq. 4).

    >>> relative_position_bias(torch.arange(9.0)[:, None], relative_position_index(2))[0, 0].tolist()
    [4.0, 3.0, 1.0, 0.0]
    """
    return table[index].permute(2, 0, 1)


class WindowAttention(nn.Module):
    """Attention within each window, with a learned bias for each relative position (Liu et al. 2021, eq. 4).

    >>> WindowAttention(d_model=8, heads=2, size=3)(torch.zeros(5, 4, 9, 8)).shape
    torch.Size([5, 4, 9, 8])
    """

    def __init__(self, d_model: int, heads: int, size: int):
        super().__init__()
        self.attention = MultiHeadAttention(d_model, heads)
        self.table = nn.Parameter(torch.empty((2 * size - 1) ** 2, heads))
        self.register_buffer("index", relative_position_index(size), persistent=False)
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, windows: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``windows`` (b, w, q, m) after hearing their own cells; ``mask`` (w, q, k) as above."""
        mask = None if mask is None else mask[:, None]  # (w, 1, q, k): the same for every head
        return self.attention(windows, mask=mask, bias=relative_position_bias(self.table, self.index))


class SwinBlock(nn.Module):
    """Window attention, then feed-forward, on a grid (Liu et al. 2021, eq. 3).

    ``size`` is the windows' side in cells, ``shift`` how far they are moved: 0, or half of ``size``.
    Raises ValueError if ``shift`` is not within a window.

    >>> SwinBlock(d_model=8, heads=2, size=2, shift=1)(torch.zeros(1, 4, 6, 8)).shape
    torch.Size([1, 4, 6, 8])
    """

    def __init__(self, d_model: int, heads: int, size: int, shift: int = 0):
        super().__init__()
        if not 0 <= shift < size:
            raise ValueError(f"expected a shift from 0 to {size - 1} (inside a window), got {shift}")
        self.size = size
        self.shift = shift
        self.window_attention = WindowAttention(d_model, heads, size)
        self.feed_forward = feed_forward(d_model, 4 * d_model, nn.GELU())
        self.attention_residual = PreNorm(d_model)
        self.feed_forward_residual = PreNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Return the grid ``x`` (b, r, c, m) after the block, same shape."""
        x = self.attention_residual(x, self._attend)
        return self.feed_forward_residual(x, self.feed_forward)

    def _attend(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[1:3]
        if self.shift == 0:
            return window_reverse(self.window_attention(window_partition(x, self.size)), rows, columns)
        mask = shifted_window_mask(rows, columns, self.size, self.shift, x.device)
        windows = window_partition(x.roll((-self.shift, -self.shift), dims=(1, 2)), self.size)
        x = window_reverse(self.window_attention(windows, mask), rows, columns)
        return x.roll((self.shift, self.shift), dims=(1, 2))
