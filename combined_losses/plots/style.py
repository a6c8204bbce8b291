"""What the figures share: colours, markers, axes, and a legend that covers nothing."""

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from numpy.typing import NDArray

Choice = TypeVar("Choice")

# Blue, vermilion, bluish green, orange, sky blue, reddish purple, black: no two alike in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")
# There are 7 colours, 12 markers and 11 hatches: numbers without common factors, so that the pairs
# of colour and marker, or colour and hatch, repeat as late as possible.
MARKERS = "osD^vPX<>*ph"
HATCHES = ("", "//", "..", "\\\\", "xx", "--", "++", "oo", "||", "**", "OO")


def pick(choices: Sequence[Choice], index: int) -> Choice:
    """The entry at an index; after the last entry comes the first one again."""
    return choices[index % len(choices)]


def wrap(label: str, width: int = 40) -> str:
    """The label on lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(label, width, drop_whitespace=False)) or label


def new_axes(figsize: tuple[float, float] = (5, 4)) -> "Axes":
    """The axes of a new figure."""
    import matplotlib.pyplot as plt

    axes: Axes = plt.subplots(figsize=figsize, layout="constrained")[1]
    return axes


def mark_epochs(ax: "Axes") -> None:
    """Labels the horizontal axis with whole epochs, and draws a light frame."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    ax.spines[["top", "right"]].set_visible(False)


def spread_out(set_scale: Callable[[str], None], values: "NDArray[np.float64]") -> bool:
    """Makes an axis logarithmic if the values are positive and differ by a factor of 30.

    Args:
        set_scale: `set_xscale` or `set_yscale` of the axes.
        values: what is drawn along the axis.

    Returns:
        Whether the axis is logarithmic.
    """
    values = values[np.isfinite(values)]
    is_wide = len(values) > 0 and bool(0 < 30 * values.min() < values.max())
    if is_wide:
        set_scale("log")
    return is_wide


def add_legend(
    ax: "Axes", handles: "Sequence[Artist]", labels: Sequence[str], dashed: bool = False
) -> None:
    """Adds a legend below the label of the horizontal axis, in as many columns as fit.

    Args:
        ax: the axes.
        handles: what is drawn, an artist for each entry.
        labels: the texts of the entries.
        dashed: whether an entry explains that dashed lines are the validation.
    """
    from matplotlib import rcParams
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    if dashed:
        handles = [*handles, Line2D([], [], color="#555555", linestyle="--")]
        labels = [*labels, "validation"]
    labels = [wrap(label) for label in labels]
    size: float = rcParams["font.size"]
    longest = max(len(line) for label in labels for line in label.splitlines())
    width = ax.get_window_extent().width * 72 / ax.figure.dpi  # in points, as `size` is
    columns = int(width / (size * (0.55 * longest + 3.5)))
    lines = 3.1 + 1.2 * ax.get_xlabel().count("\n")
    below = ScaledTranslation(0, -lines * size / 72, ax.figure.dpi_scale_trans)
    legend = ax.legend(
        handles,
        ["-"] * len(labels),
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        bbox_transform=ax.transAxes + below,
        ncols=min(max(columns, 1), 3, len(labels)),
        handlelength=1.8,
        columnspacing=1.2,
        frameon=False,
    )
    # The texts are set only now, because `legend` drops labels that begin with "_" and reads "$" as
    # the beginning of a formula.
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set(text=label, parse_math=False)


def make_room(figure: "Figure | SubFigure") -> None:
    """Makes the figure taller by the height that its legends need beyond two lines."""
    from matplotlib import rcParams

    line: float = rcParams["font.size"] / 72
    legends = [legend for ax in figure.axes if (legend := ax.get_legend()) is not None]
    highest = max(legend.get_window_extent().height for legend in legends) / figure.dpi
    root = figure.figure
    width, height = root.get_size_inches()
    root.set_size_inches(width, height + max(0.0, highest - 3 * line))
