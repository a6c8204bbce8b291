"""Figures of a diagnosis: which components pull against each other, and how large each one is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from combined_losses.plots.style import COLOURS, new_axes, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


class HasCosines(Protocol):
    """What `conflicts` draws: the cosines `(k, k)` between the gradients of k components."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def cosines(self) -> Any: ...


def conflicts(diagnosis: HasCosines, ax: "Axes | None" = None) -> "Axes":
    """Draws the cosine between the gradients of every two components, as a table of squares.

    Blue means that they pull together (+1), orange that they pull against each other (-1); the sign
    of the number says the same. A dash means that one of them has no gradient.

    Args:
        diagnosis: what `cl.diagnose` returned, or a `cl.callbacks.GradientConflict` after training;
            anything with `names`, a sequence of k, and `cosines`, `(k, k)`.
        ax: the matplotlib axes to draw in; default: those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: if there is nothing to draw.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> x, y = np.random.rand(8, 2), np.random.rand(8, 1)
    >>> model = cl.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("adam", loss=cl.CompositeLoss(["mse", "mae"]))
    >>> ax = cl.plots.conflicts(cl.diagnose(model, x, y))
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['mse', 'mae']
    """
    names, cosines = list(getattr(diagnosis, "names", ())), getattr(diagnosis, "cosines", None)
    if not names or cosines is None:
        raise ValueError(
            "`diagnosis` must be what cl.diagnose returned, or a GradientConflict callback after "
            f"at least one measurement. Received: {diagnosis!r}"
        )
    side = max(3.4, 0.5 * len(names))
    ax = ax or new_axes((side + 1.8, side + 0.6))
    _draw_cosines(ax, names, np.array(cosines, "float64"))
    bar = ax.figure.colorbar(ax.images[0], ax=ax, label="cosine of the gradients", shrink=0.8)
    bar.set_ticks([-1, -0.5, 0, 0.5, 1])
    _write_numbers(ax, cosines)
    return ax


def _draw_cosines(ax: "Axes", names: Sequence[str], cosines: "NDArray[np.float64]") -> None:
    """Draws the squares and the names, without numbers."""
    ax.imshow(cosines, cmap=_colours(), vmin=-1, vmax=1)
    ticks, labels = range(len(names)), [wrap(name, 18) for name in names]
    ax.set_xticks(ticks, labels, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    ax.set_yticks(ticks, labels, parse_math=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _colours() -> "Colormap":
    """From orange over white to blue, which the colour-blind can tell apart; in print, read the
    numbers."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = [COLOURS[1], "#FFFFFF", COLOURS[0]]
    return LinearSegmentedColormap.from_list("conflict", stops).with_extremes(bad="#E6E6E6")


def _write_numbers(ax: "Axes", cosines: "NDArray[np.float64]") -> None:
    """Writes each cosine into its square, unless the squares are too small to read it."""
    ax.figure.figure.draw_without_rendering()  # computes the layout, and so the size of the squares
    square = ax.get_window_extent().width * 72 / ax.figure.dpi / len(cosines)
    size = min(10.0, square / 3.2)
    if size < 5:
        return
    for (row, column), cosine in np.ndenumerate(cosines):
        text = "–" if np.isnan(cosine) else f"{cosine:+.2f}"
        colour = "white" if abs(cosine) > 0.8 else "black"
        ax.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def overview(diagnosis: Any) -> "Figure":
    """Draws the shares of loss and gradient of a `Diagnosis` as bars, and the cosines.

    The cosines are those of whole components; bars are drawn for their parts as well.
    """
    from matplotlib.figure import Figure

    names = list(diagnosis.names)
    whole = [i for i, name in enumerate(names) if not np.isnan(diagnosis[name].proposed_weight)]
    width, height = 0.6 * len(whole) + 2.2, 1.4 + 0.42 * len(names)
    figure = Figure(figsize=(5.5 + width, max(height, 3.2, width)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[5.5, width])
    _bars(left, diagnosis, names)
    cosines = diagnosis.cosines[np.ix_(whole, whole)]
    _draw_cosines(right, [names[i] for i in whole], cosines)
    right.set_title("cosine of the gradients", loc="right", fontsize="medium")
    _write_numbers(right, cosines)
    return figure


def _bars(ax: "Axes", diagnosis: Any, names: Sequence[str]) -> None:
    parts, rows = [diagnosis[name] for name in names], np.arange(len(names))
    for offset, what, label, colour, hatch in (
        (-0.19, "share", "share of the loss", COLOURS[4], "//"),
        (0.19, "gradient_share", "share of the gradient", COLOURS[0], ""),
    ):
        shares = 100 * np.nan_to_num([getattr(part, what) for part in parts])
        style: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "black"}
        ax.barh(rows + offset, shares, 0.36, label=label, linewidth=0.5, **style)
    ax.set_yticks(rows, [wrap(name, 24) for name in names], parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(0, 100)
    ax.set_xlabel("%")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
