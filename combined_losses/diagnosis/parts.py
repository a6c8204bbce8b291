"""The parts of a compiled loss: its components, and those of nested composites."""

from typing import NamedTuple

import numpy as np

from combined_losses._core.leaf import Leaf
from combined_losses._core.names import log_key
from combined_losses._core.node import Node
from combined_losses._core.traits import is_ours
from combined_losses.training.routing import Route


class Part(NamedTuple):
    """A component, or a part of a nested one.

    Attributes:
        name: its name in the logs, without `_loss`.
        key: its log key.
        parent: the name of the component that it is a part of, or None.
        is_beyond_output: whether it acts on the model by more than its output.
        factor: the entry of `loss_weights` that multiplies it, in addition to its own weight.
        weight: its weight in the value of its parent; of a weight that moves, the fixed factor.
            NaN: unknown.
        is_own: whether it is evaluated on its own; else it is one entry of an array that holds it
            and its siblings.
    """

    name: str
    key: str
    parent: str | None
    is_beyond_output: bool
    factor: float
    weight: float
    is_own: bool


def parts_of(route: Route) -> list[Part]:
    """The parts of a route, in the order of its log keys."""
    loss, whole = route.loss, route.total_name
    parts: list[Part] = []
    if whole is not None:
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


def _is_beyond_output(loss: Node, path: str) -> bool:
    """Whether the outermost component of a path acts on the model by more than its output."""
    first = path.partition("/")[0]
    inside = {prefix: node for node, prefix in loss.nodes_inside()} if loss.has_weights else {}
    beyond: bool = inside.get(f"{first}/", loss).acts_beyond_output()
    return beyond


def is_known(node: Node) -> bool:
    """Whether a loss, and each loss inside it, is one of Keras's or of this library's.

    Such a loss reads nothing but what it is given.
    """
    types = [type(compound) for compound in node.compounds()]
    return all(map(is_ours, types)) and all(_is_of_keras_or_ours(leaf) for leaf in node.leaves())


def _is_of_keras_or_ours(leaf: Leaf) -> bool:
    reader = leaf.reader
    if isinstance(reader, str):
        return True
    module = getattr(reader, "__module__", type(reader).__module__) or ""
    return module.split(".")[0] in ("keras", "combined_losses")
