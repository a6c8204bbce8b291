"""What the figures share: colours, markers, axes, and a legend that covers nothing."""

import textwrap

import numpy as np

# Blue, vermilion, bluish green, orange, sky blue, reddish purple, black: no two alike in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")
# Of these 12 and of the 11 hatches each meets each of the 7 colours before a pair comes again.
MARKERS = "osD^vPX<>*ph"
HATCHES = ("", "//", "..", "\\\\", "xx", "--", "++", "oo", "||", "**", "OO")


def pick(choices, index):
    return choices[index % len(choices)]


def wrap(label, width=40):
    return "\n".join(textwrap.wrap(label, width, drop_whitespace=False)) or label


def new_axes(figsize=(5, 4)):
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=figsize, layout="constrained")[1]


def mark_epochs(ax):
    """A horizontal axis of whole epochs, and a light frame."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    ax.spines[["top", "right"]].set_visible(False)


def spread_out(set_scale, values):
    """Makes an axis logarithmic where the values are positive and differ by a factor of 30.

    `set_scale` is the axes' `set_xscale` or `set_yscale`. Returns whether it is.
    """
    values = values[np.isfinite(values)]
    wide = len(values) > 0 and 0 < 30 * values.min() < values.max()
    if wide:
        set_scale("log")
    return wide


def add_legend(ax, handles, labels, dashed=False):
    """The legend below the axis' label, in as many columns as there is room for."""
    from matplotlib import rcParams
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    if dashed:
        handles = [*handles, Line2D([], [], color="#555555", linestyle="--")]
        labels = [*labels, "validation"]
    labels = [wrap(label) for label in labels]
    size = rcParams["font.size"]
    longest = max(len(line) for label in labels for line in label.splitlines())
    width = ax.get_window_extent().width * 72 / ax.figure.dpi  # points, as `size`
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
    # Now, since `legend` drops labels that begin with "_" and takes "$" for mathematics.
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set(text=label, parse_math=False)


def make_room(figure):
    """Makes the figure higher by what its legends need beyond two lines."""
    from matplotlib import rcParams

    line = rcParams["font.size"] / 72
    legends = [ax.get_legend().get_window_extent().height / figure.dpi for ax in figure.axes]
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + max(0, max(legends) - 3 * line))
