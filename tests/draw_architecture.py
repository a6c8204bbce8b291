"""Draws docs/architecture.svg from the imports of the package: `python -m tests.draw_architecture`.

The picture has an arrow for each folder that imports from another, but not where a longer way of
arrows says so already: the whole list is in the text of the file. tests/test_architecture.py fails
where the committed picture is not the one that this draws.
"""

import math
from pathlib import Path

from tests.imports import arrows_in

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "architecture.svg"
LEFT, MIDDLE, RIGHT = 162, 414, 666  # the middle of a column
WIDTH, ROW, TOP = 800, 66, 20
BOX = (230, 46)

# The column of each folder, and what lives in it. `_version` has one number and is not drawn.
BOXES = {
    "__main__": (MIDDLE, "the shell command"),
    "demo": (MIDDLE, "combined-losses demo"),
    "": (MIDDLE, "the public names"),
    "callbacks": (MIDDLE, "what Keras calls in fit"),
    "diagnosis": (MIDDLE, "what is wrong with a loss"),
    "plots": (RIGHT, "figures of logs"),
    "training": (MIDDLE, "models that report the parts"),
    "losses": (LEFT, "targets against predictions"),
    "composite": (MIDDLE, "many losses joined into one"),
    "tuning": (MIDDLE, "searches on your own data"),
    "points": (RIGHT, "points for equations"),
    "wrappers": (LEFT, "which data a loss sees"),
    "weightings": (MIDDLE, "rules that give the weights"),
    "_core": (MIDDLE, "from data to one number"),
    "_backend": (MIDDLE, "frameworks, private Keras"),
    "_numerics": (RIGHT, "maths on keras.ops"),
}
NOT_DRAWN = {"_version"}


def title_of(folder):
    files = {
        "": "combined_losses/__init__.py",
        "__main__": "__main__.py",
        "_version": "_version.py",
    }
    return files.get(folder, f"{folder}/")


def folders_in(package: Path) -> dict[str, set[str]]:
    """For each folder, or file of the package itself, those that it imports from."""
    found: dict[str, set[str]] = {}
    for module, targets in arrows_in(package).items():
        folder = module.partition(".")[0]
        others = {target.partition(".")[0] for target in targets}
        found.setdefault(folder, set()).update(others - {folder})
    return found


def shortened(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows without those that a longer way says already; there is no circle."""

    def reached(folder):
        return arrows[folder].union(*map(reached, arrows[folder]))

    return {f: found - set().union(*map(reached, found)) for f, found in arrows.items()}


def drawn(floors: dict[str, int], arrows: dict[str, set[str]]) -> str:
    """The picture, as the text of an svg file."""
    new = sorted(floors.keys() - BOXES.keys() - NOT_DRAWN)
    assert not new, f"give {new[0]} a place in BOXES of tests/draw_architecture.py"
    highest = max(floors.values())
    height = 2 * TOP + ROW * highest + BOX[1]
    middles = {f: (BOXES[f][0], TOP + BOX[1] // 2 + ROW * (highest - floors[f])) for f in BOXES}
    shown = {f: found & BOXES.keys() for f, found in shortened(arrows).items() if f in BOXES}
    lines = [_line(middles[f], middles[t]) for f, found in shown.items() for t in sorted(found)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            f' width="{WIDTH}" height="{height}" font-family="Helvetica, Arial, sans-serif">',
            "<title>The floors of combined_losses, and which folder imports from which</title>",
            *("<desc>", *_listed(floors, arrows), "</desc>"),
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *(_floor(number, TOP + ROW * (highest - number)) for number in range(highest + 1)),
            *sorted(lines),
            *(_box(folder, *middles[folder]) for folder in BOXES),
            "</svg>\n",
        ]
    )


def _listed(floors, arrows):
    """Every floor and arrow, in words."""
    for folder, floor in sorted(floors.items(), key=lambda item: (item[1], item[0])):
        targets = ", ".join(map(title_of, sorted(arrows[folder]))) or "nothing"
        yield f"floor {floor}: {title_of(folder)} imports {targets}"


def _floor(number, y):
    width, height = WIDTH - 16, BOX[1] + 12
    return (
        f'<rect x="8" y="{y - 6}" width="{width}" height="{height}" rx="6" fill="#f3f5f8"/>\n'
        f'<text x="22" y="{y + BOX[1] // 2 + 5}" font-size="14" fill="#667">{number}</text>'
    )


def _box(folder, x, y):
    width, height = BOX
    private = folder.startswith("_") and folder != "__main__"
    return (
        f'<rect x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}" rx="6"'
        f' fill="{"#e4e4e4" if private else "#d6e6fa"}" stroke="#456"/>\n'
        f'<text x="{x}" y="{y - 4}" font-size="14" font-weight="bold" text-anchor="middle"'
        f' fill="#123">{title_of(folder)}</text>\n'
        f'<text x="{x}" y="{y + 14}" font-size="13" text-anchor="middle"'
        f' fill="#345">{BOXES[folder][1]}</text>'
    )


def _line(start, end):
    """An arrow: straight down, across to the next floor, or aside and then down past others."""
    (x, y), (to_x, to_y) = start, end
    side = (to_x > x) - (to_x < x)
    half, low, high = BOX[0] // 2, BOX[1] // 2, to_y - BOX[1] // 2
    if side and to_y - y > ROW:
        points = [(x + side * half, y), (to_x, y), (to_x, high)]
    else:
        aside = side * (half - 30)
        points = [(x + aside, y + low), (to_x - aside, high)]
    way = " L".join(f"{x},{y}" for x, y in points)
    return f'<path d="M{way}" fill="none" stroke="#456" stroke-width="1.5"/>{_head(*points[-2:])}'


def _head(start, end):
    """The head of an arrow, as a shape: not every program draws markers."""
    (x, y), (to_x, to_y) = start, end
    length = math.hypot(to_x - x, to_y - y)
    along_x, along_y = 9 * (to_x - x) / length, 9 * (to_y - y) / length
    back = [
        (to_x - along_x + half * along_y, to_y - along_y - half * along_x) for half in (0.45, -0.45)
    ]
    shape = " L".join(f"{x:.1f},{y:.1f}" for x, y in [end, *back])
    return f'<path d="M{shape} z" fill="#456"/>'


def main():
    from tests.test_house import FLOORS, PACKAGE

    PICTURE.write_text(drawn(FLOORS, folders_in(PACKAGE)), encoding="utf-8")


if __name__ == "__main__":
    main()
