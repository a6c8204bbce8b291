"""Figures of a diagnosis: who pulls against whom, and who has how large a share."""

from typing import TYPE_CHECKING, Any

import numpy as np

from combined_losses.plots.style import COLOURS, new_axes, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def conflicts(diagnosis: Any, ax: "Axes | None" = None) -> "Axes":
    """Draws the cosine between the gradients of every two components, as a table of squares.

    Blue: they pull together (+1); orange: against each other (-1), which the sign says as well;
    a dash: one of them has no gradient.

    Args:
        diagnosis: what `cl.diagnose` returned, or a `cl.callbacks.GradientConflict` after training;
            anything with `names`, a sequence of k, and `cosines`, `(k, k)`.
        ax: the matplotlib axes to draw in; default: a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: where there is nothing to draw.

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


def _draw_cosines(ax, names, cosines):
    ax.imshow(cosines, cmap=_colours(), vmin=-1, vmax=1)
    ticks, names = range(len(names)), [wrap(name, 18) for name in names]
    ax.set_xticks(ticks, names, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    ax.set_yticks(ticks, names, parse_math=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _colours():
    """Orange over white to blue: told apart by the colour-blind; the numbers say it in print."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = [COLOURS[1], "#FFFFFF", COLOURS[0]]
    return LinearSegmentedColormap.from_list("conflict", stops).with_extremes(bad="#E6E6E6")


def _write_numbers(ax, cosines):
    """Writes each cosine into its square, as large as the squares allow; none where too small."""
    ax.figure.draw_without_rendering()  # the layout decides how large they are
    square = ax.get_window_extent().width * 72 / ax.figure.dpi / len(cosines)
    size = min(10.0, square / 3.2)
    if size < 5:
        return
    for (row, column), cosine in np.ndenumerate(cosines):
        text = "–" if np.isnan(cosine) else f"{cosine:+.2f}"
        colour = "white" if abs(cosine) > 0.8 else "black"
        ax.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def overview(diagnosis) -> "Figure":
    """The shares of loss and gradient as bars; beside them the cosines of whole components."""
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


def _bars(ax, diagnosis, names):
    parts, rows = [diagnosis[name] for name in names], np.arange(len(names))
    for offset, what, label, style in (
        (-0.19, "share", "share of the loss", {"color": COLOURS[4], "hatch": "//"}),
        (0.19, "gradient_share", "share of the gradient", {"color": COLOURS[0]}),
    ):
        shares = 100 * np.nan_to_num([getattr(part, what) for part in parts])
        ax.barh(rows + offset, shares, 0.36, label=label, edgecolor="black", linewidth=0.5, **style)
    ax.set_yticks(rows, [wrap(name, 24) for name in names], parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(0, 100)
    ax.set_xlabel("%")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
