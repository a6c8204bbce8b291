"""Draws the pictures of docs/which_loss.md from the losses: `python -m tests.draw_losses [names]`.

Each is a small SVG that is readable on white and on black. tests/test_which_loss.py fails where a
committed picture shows another curve than the loss gives.
"""

import io
import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import tests.curves_of_distributions
import tests.curves_of_embeddings
import tests.curves_of_labels
import tests.curves_of_registration  # noqa: F401 (they register their pictures)
from combined_losses.losses import signed_distance
from tests import curves_of_fields
from tests.curves_of_losses import PICTURES, Picture

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "losses"
# Each has a contrast of at least 3.9 to white and to Furo's dark background.
GREY, COLOURS = "#7b7b7b", ("#2680d0", "#d0611c", "#4b9130")
STYLE = {
    "svg.hashsalt": "combined_losses",
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "path.simplify": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), GREY
    ),
}
NAMES = [*PICTURES, "signed_distance"]


def drawn(name: str) -> str:
    """The text of the picture of a loss."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.6, 1.75))
        axes = figure.add_axes((0.18, 0.23, 0.78, 0.62))
        if name == "signed_distance":
            draw_map(axes)
        else:
            draw_curves(axes, PICTURES[name]())
        text = io.StringIO()
        figure.savefig(
            text, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return "".join(line.rstrip() + "\n" for line in text.getvalue().splitlines())


def draw_curves(axes, picture: Picture) -> None:
    colours = iter(COLOURS)
    for number, curve in enumerate(picture.curves):
        style = {"color": GREY, "ls": "--"} if curve.other else {"color": next(colours)}
        width = 1.2 if curve.other else 1.8
        axes.plot(curve.x, curve.y, label=curve.label, lw=width, gid=f"curve{number}", **style)
    axes.set_xlabel(picture.x_label, labelpad=1.5)
    axes.set_ylabel(picture.y_label, labelpad=1.5)
    if picture.ticks:
        axes.set_xscale("log")
        axes.set_xticks(picture.ticks, [f"{tick:g}" for tick in picture.ticks])
        axes.minorticks_off()
    else:
        axes.locator_params(axis="x", nbins=4)
    axes.locator_params(axis="y", nbins=3)
    axes.tick_params(length=2, pad=1.5)
    if picture.y_max is not None:
        axes.set_ylim(top=picture.y_max)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.46, 0.98), ncols=len(picture.curves), frameon=False,
        borderpad=0, handlelength=1.2, handletextpad=0.4, columnspacing=0.9,
    )  # fmt: skip


def draw_map(axes) -> None:
    """Lines of equal distance to the contour of a mask."""
    mask = np.maximum(
        curves_of_fields.disk(6, column=-6), curves_of_fields.disk(4, row=4, column=5)
    )
    distances = signed_distance(curves_of_fields.hard(mask)[..., 0])
    levels = [-4, -2, 0, 2, 4, 8, 12]
    colours = [COLOURS[0]] * 2 + [COLOURS[1]] + [GREY] * 4
    lines = axes.contour(distances, levels=levels, colors=colours, linestyles="-", linewidths=1.2)
    axes.clabel(lines, levels=[-4, 0, 4, 8], fontsize=7, fmt="%d")
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_position((0.02, 0.02, 0.96, 0.96))


def main(names: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or NAMES:
        (FOLDER / f"{name}.svg").write_text(drawn(name), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
