"""Names, parents and weights of the parts of a loss that is reported for several outputs.

Each output is a part under its own name. The parts of a composite are parts of it: `full` has the
parts `full_dice` and `full_bce`.
"""

from collections.abc import Iterable, Mapping

from combined_losses._core.node import Node


def part_names(outputs: Iterable[str], node: Node) -> tuple[str, ...]:
    """The names of all parts, in order."""
    inner = node.component_names
    return tuple(part for out in outputs for part in (out, *(f"{out}_{name}" for name in inner)))


def part_parents(outputs: Iterable[str], node: Node) -> dict[str, str | None]:
    """For each part the name of the part that contains it; None for an output."""
    found: dict[str, str | None] = {}
    inner = node.part_parents
    for out in outputs:
        found[out] = None
        found.update({f"{out}_{n}": f"{out}_{p}" if p else out for n, p in inner.items()})
    return found


def part_weights(weights: Mapping[str, float], node: Node) -> dict[str, float | None]:
    """For each part its weight in the part that contains it; `weights` are those of the outputs."""
    found: dict[str, float | None] = {}
    inner = node.part_weights
    for out, weight in weights.items():
        found[out] = weight
        found.update({f"{out}_{name}": own for name, own in inner.items()})
    return found
