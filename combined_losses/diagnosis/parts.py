"""The parts of a compiled loss: its components, and those of nested composites."""

from typing import NamedTuple

import numpy as np

from combined_losses._core.names import log_key
from combined_losses._core.traits import is_ours


class Part(NamedTuple):
    """A component, or a part of a nested one.

    Attributes:
        name: as in the logs, without `_loss`.
        key: its log key.
        parent: the name of the component that it is a part of, or None.
        is_beyond_output: whether it acts on the model by more than its output.
        factor: what multiplies it beside its own weight: `loss_weights`.
        weight: what multiplies it in the value of its parent, where that does not move by itself;
            NaN: unknown.
        is_own: whether it is evaluated on its own, not in one array with its siblings.
    """

    name: str
    key: str
    parent: str | None
    is_beyond_output: bool
    factor: float
    weight: float
    is_own: bool


def parts_of(route):
    """The parts of a route, in the order of its log keys."""
    loss, parts, whole = route.loss, [], None
    if route.reports_total:
        whole = route.output
        beyond = loss.acts_beyond_output()
        parts.append(Part(whole, log_key(whole), None, beyond, route.weight, 1.0, True))
    if not loss.is_made_of_losses:
        return parts
    parents, weights = loss.part_parents, loss.part_weights
    for path in loss.component_names:
        outer, name, weight = parents[path], route.prefixed(path), weights[path]
        parent = whole if outer is None else route.prefixed(outer)
        factor = 1.0 if parent else route.weight
        weight = np.nan if weight is None else weight
        beyond = _is_beyond_output(loss, path)
        own = path in loss.settable_names
        parts.append(Part(name, log_key(name), parent, beyond, factor, weight, own))
    return parts


def _is_beyond_output(loss, path):
    """Whether the outermost component of a path acts on the model by more than its output."""
    first = path.partition("/")[0]
    inside = {prefix: node for node, prefix in loss.nodes_inside()} if loss.has_weights else {}
    return inside.get(f"{first}/", loss).acts_beyond_output()


def is_known(node):
    """Whether a loss, and all inside, is of Keras or of this library, and reads nothing else."""
    types = [type(compound) for compound in node.compounds()]
    return all(map(is_ours, types)) and all(_is_of_keras_or_ours(leaf) for leaf in node.leaves())


def _is_of_keras_or_ours(leaf):
    reader = leaf.reader
    if isinstance(reader, str):
        return True
    module = getattr(reader, "__module__", type(reader).__module__) or ""
    return module.split(".")[0] in ("keras", "combined_losses")
