"""The names, parents and weights of a loss that is reported for several outputs.

Each output is a part under its own name, and so is each part of a composite there: `full`,
`full_dice`, `full_bce`.
"""

from combined_losses._core.compound import Compound


def part_names(outputs, loss):
    """The names of all parts, in order."""
    inner = loss.component_names if isinstance(loss, Compound) else ()
    return tuple(part for out in outputs for part in (out, *(f"{out}_{name}" for name in inner)))


def part_parents(outputs, loss):
    """The part that each is a part of, by name; None for an output."""
    inner = loss.part_parents if isinstance(loss, Compound) else {}
    found = {}
    for out in outputs:
        found[out] = None
        found.update({f"{out}_{n}": f"{out}_{p}" if p else out for n, p in inner.items()})
    return found


def part_weights(weights, loss):
    """What each part is multiplied by in its parent; `weights` are those of the outputs."""
    inner = loss.part_weights if isinstance(loss, Compound) else {}
    found = {}
    for out, weight in weights.items():
        found[out] = weight
        found.update({f"{out}_{name}": own for name, own in inner.items()})
    return found
