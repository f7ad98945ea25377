"""The look of every figure in the course: a light card that reads well on a light and on a dark page.

Colours are told apart by people with any kind of colour vision (Okabe and Ito's palette), and no figure says
something by colour alone: lines also differ in marker or label.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW = "#0072b2", "#d55e00", "#009e73", "#a8528a", "#56b4e9", "#e69f00"
INK, MUTED, LINE, CARD = "#1f2933", "#52606d", "#d5dbe1", "#fcfcfa"
SEQUENTIAL = LinearSegmentedColormap.from_list("card_to_blue", [CARD, "#9fcbe6", BLUE, "#062b45"])
"""The colours of weights: nothing is the card itself, one is the darkest blue."""

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": CARD,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW])
    + cycler(marker=["o", "s", "^", "D", "v", "P"]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "figure.dpi": 120,
    "figure.facecolor": CARD,
    "figure.figsize": (7.2, 3.6),
    "font.size": 10.5,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 5,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def house_style() -> None:
    """Draw every later matplotlib figure in the style of the course. Call it once, at the head of a notebook.

    >>> house_style()
    >>> plt.rcParams["axes.grid"]
    True
    """
    plt.rcParams.update(_STYLE)


def heatmap(
    weights: Tensor | Sequence[Sequence[float]],
    rows: Sequence[object],
    columns: Sequence[object],
    *,
    axes: Axes | None = None,
    title: str = "",
    row_label: str = "query",
    column_label: str = "key",
    digits: int | None = 2,
    top: float = 1.0,
) -> Axes:
    """Draw ``weights`` (q, k) as shaded cells, a row for each query and a column for each key.

    ``rows`` and ``columns`` name the queries and keys. Each cell also shows its number with ``digits``
    decimals; None leaves the numbers out. ``top`` is the weight of the darkest colour. Returns the axes drawn
    on: ``axes``, or those of a new figure sized to fit.
    Raises ValueError if the names do not fit the weights.

    >>> heatmap([[0.25, 0.75]], ["dream"], ["i", "have"]).get_ylabel()
    'query'
    """
    table = torch.as_tensor(weights).detach().cpu().float()
    if table.shape != (len(rows), len(columns)):
        raise ValueError(
            f"expected weights of shape ({len(rows)}, {len(columns)}), one row a query and one column a key, "
            f"got {tuple(table.shape)}"
        )
    if axes is None:
        size = (1.6 + 0.72 * len(columns), 1.1 + 0.5 * len(rows))
        axes = plt.figure(figsize=size).add_subplot()
    axes.imshow(table.numpy(), cmap=SEQUENTIAL, vmin=0, vmax=top, aspect="auto")
    axes.set(xlabel=column_label, ylabel=row_label, title=title)
    axes.set_xticks(range(len(columns)), [str(name) for name in columns])
    axes.set_yticks(range(len(rows)), [str(name) for name in rows])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if digits is not None:
        for row, column in torch.cartesian_prod(*map(torch.arange, table.shape)).tolist():
            value = table[row, column].item()
            colour = "white" if value > 0.58 * top else INK
            axes.text(column, row, f"{value:.{digits}f}", ha="center", va="center", color=colour)
    return axes
