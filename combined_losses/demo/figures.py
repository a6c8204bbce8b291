"""The demo's figures, drawn without a display."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from combined_losses import plots
from combined_losses.demo.comparison import Comparison
from combined_losses.demo.units import power_of_ten, put_power

STYLE: dict[Any, Any] = {"font.size": 12, "axes.titlesize": 12, "hatch.linewidth": 0.5}
ALONE, COMPOSITE = "#555555", "#0072B2"
# The colours of pixels, by whether they are of a line and whether they were found.
PIXELS = {"found": "#000000", "missed": "#E69F00", "false": "#56B4E9", "background": "#FFFFFF"}


def components(path: Path, result: Comparison) -> None:
    """Each component's curve, and its share of the loss."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_history(result, left, right)
        figure.suptitle(list(result.experiment.arms)[-1])
        figure.savefig(path, dpi=120)


def overview(
    path: Path,
    result: Comparison,
    errors: dict[str, np.ndarray],
    unit: str,
    images: dict[str, np.ndarray],
) -> None:
    """Components, shares and errors of (a), and below it pictures of (b), if there are any."""
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 6.9 if images else 3.6), layout="constrained")
        above, *below = figure.subfigures(2 if images else 1, 1, squeeze=False)[:, 0]
        left, middle, right = above.subplots(1, 3)
        _draw_history(result, left, middle)
        _draw_errors(right, errors, unit)
        for part in below:
            shown = dict(list(_coloured(images).items())[:4])  # what is found halfway, not the end
            axes = part.subplots(1, len(shown))
            for ax, (name, picture) in zip(axes, shown.items(), strict=True):
                _draw_picture(ax, _mosaic(picture[:4]))
                ax.set_title(name.replace(", ", ",\n"))
            _explain_pixels(part)
        figure.savefig(path, dpi=130)


def _draw_history(result: Comparison, left: Axes, right: Axes) -> None:
    plots.components(result.history, left)
    left.set_title("Every component, from one pass")
    plots.shares(result.history, right)
    right.set_title("What the loss is made of")
    # Inside, because legends of different heights below the axes leave bands between the panels.
    names = _take_legend(left)
    left.legend(list(names.values()), list(names), loc="best", framealpha=0.9)
    _name_areas(right, list(_take_legend(right)))


def _take_legend(ax: Axes) -> dict[str, Any]:
    """The entries of a legend, which is removed: what is drawn, by its text."""
    legend: Any = ax.get_legend()
    legend.remove()
    texts = [text.get_text() for text in legend.get_texts()]
    return dict(zip(texts, legend.legend_handles, strict=True))


def _name_areas(ax: Axes, names: list[str]) -> None:
    """Writes the name of each area into its middle, instead of a legend."""
    middle = np.mean(ax.get_xlim())
    for name, area in zip(names, ax.collections, strict=False):
        x, y = np.asarray(area.get_paths()[0].vertices).T
        near = np.abs(x - middle) <= np.abs(x - middle).min() + 1e-9
        low, high = y[near].min(), y[near].max()
        if high - low > 8:  # per cent; a name would not fit into less
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 2}
            ax.text(x[near][0], (low + high) / 2, name, ha="center", va="center", bbox=box)


def _draw_errors(ax: Axes, errors: dict[str, np.ndarray], unit: str) -> None:
    """Both arms' errors as outlines, with the share that is below zero."""
    limit = 1.05 * np.percentile(np.abs(np.concatenate(list(errors.values()))), 99)
    power = power_of_ten(limit)
    errors = {arm: values / 10.0**power for arm, values in errors.items()}
    limit /= 10.0**power
    bins = list(np.linspace(-limit, limit, 25))
    styles = ((ALONE, "--"), (COMPOSITE, "-"))
    ax.axvspan(-limit, 0, color="#F3F3F3", zorder=0)
    for (arm, values), (colour, line) in zip(errors.items(), styles, strict=True):
        label = f"{arm}: {100 * np.mean(values < 0):.0f} % below 0"
        ax.hist(values, bins, histtype="step", lw=2, color=colour, ls=line, label=label)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlim(-limit, limit)
    ax.set_ylim(0, 1.35 * ax.get_ylim()[1])  # room for the legend
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel(put_power(f"predicted - true ({unit})", power), parse_math=False)
    ax.set_ylabel("held-out rows")
    ax.set_title("Errors on held-out data")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper center", handlelength=1.2, fontsize=10.5, framealpha=0.9)


def examples(path: Path, images: dict[str, np.ndarray]) -> None:
    """One row of pictures for each entry of `images`: image, truth, and what each arm finds."""
    count = len(next(iter(images.values())))
    with rc_context(STYLE):
        figure = Figure(
            figsize=(2.3 + 1.1 * count, 0.35 + 1.07 * len(images)), layout="constrained"
        )
        axes = figure.subplots(len(images), count)
        for row, (name, pictures) in zip(axes, _coloured(images).items(), strict=True):
            for ax, picture in zip(row, pictures, strict=True):
                _draw_picture(ax, picture)
            name = name.replace(", ", ",\n")
            row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        _explain_pixels(figure)
        figure.savefig(path, dpi=110)


def _draw_picture(ax: Axes, picture: np.ndarray) -> None:
    ax.imshow(picture, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])


def _explain_pixels(figure: Any) -> None:
    patches = [
        Patch(facecolor=PIXELS[name], edgecolor="black", linewidth=0.5, label=label)
        for name, label in (
            ("found", "line, found"),
            ("missed", "line, missed"),
            ("false", "found, but no line"),
        )
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False)


def _coloured(images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the arms find as RGB, coloured by the truth; the image and the truth as they are."""
    truth = images["truth"]
    coloured = {}
    for name, picture in images.items():
        if name not in ("image", "truth"):
            found = picture
            picture = np.empty((*truth.shape, 3))
            for kind, where in (
                ("found", truth & found),
                ("missed", truth & ~found),
                ("false", ~truth & found),
                ("background", ~truth & ~found),
            ):
                picture[where] = to_rgb(PIXELS[kind])
        coloured[name] = picture
    return coloured


def _mosaic(pictures: np.ndarray) -> np.ndarray:
    """Four pictures, two by two, with a grey line between them."""
    size = pictures.shape[1]
    mosaic = np.full((2 * size + 1, 2 * size + 1, *pictures.shape[3:]), 0.5)
    for index, picture in enumerate(pictures):
        row, column = (size + 1) * (index // 2), (size + 1) * (index % 2)
        mosaic[row : row + size, column : column + size] = picture
    return mosaic
