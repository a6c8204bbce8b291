"""Errors and warnings about rules that cannot see all gradients at the place where they read."""

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from keras import ops

from combined_losses._core.compound import Compound
from combined_losses._core.names import quoted
from combined_losses._core.owned import owned_by
from combined_losses.composite.settable import SettableWeights
from combined_losses.weightings.base import Weighting

if TYPE_CHECKING:
    from numpy.typing import NDArray

Reader: TypeAlias = tuple[SettableWeights, Weighting]
"""A composite, and its rule, which reads gradients."""


def rules_of(compounds: Iterable[Compound]) -> list[Reader]:
    """The rules that read gradients, of composites and of the composites inside them."""
    inside = [each for loss in compounds for each in loss.compounds()]
    found = [(each, each.weighting) for each in inside if isinstance(each, SettableWeights)]
    return [(each, rule) for each, rule in found if rule is not None and rule.reads_gradients]


def check_parts(composite: SettableWeights, rule: Weighting | None) -> None:
    """Raises if a component acts on the model past the place where the rule reads its gradient."""
    if rule is None or not rule.reads_gradients or rule.place == "parameters":
        return
    for name, node in composite.nodes.items():
        if node.acts_beyond_output():
            raise ValueError(
                f"Component '{name}' of '{composite.name}' acts on the model by more than its "
                "output, and the weighting does not see that gradient: take "
                "gradients='parameters'. "
                f"Received: gradients={rule.place!r}"
            )


def bypassing(composite: SettableWeights) -> "NDArray[np.bool_] | None":
    """Which components may act on the network past the place where their rule reads gradients.

    Booleans `(k,)`, or None if the rule reads them at all parameters, past which there is no way.
    Past the output there is one only for a function that holds a network, a layer or a variable.
    """
    rule = composite.weighting
    assert rule is not None  # asked only where a rule reads gradients
    if rule.place == "parameters" and rule.shared_layers is None:
        return None
    if rule.place != "output":
        return np.ones(len(composite.names), np.bool_)
    readers = [filter(callable, node.find_readers()) for node, _ in composite.nodes_inside()]
    return np.array([any(owned_by(reader) for reader in each) for each in readers])


def warn_of_places(readers: Iterable[Reader]) -> None:
    """Warns, once, of what rules do not see where they read gradients; called after a step."""
    warn_of_missing(readers)
    warn_of_disjoint(readers)


def warn_of_disjoint(readers: Iterable[Reader]) -> None:
    """Warns, once, of components with disjoint gradients, whose conflict a rule cannot see."""
    for composite, rule in readers:
        rule = rule.innermost
        if "disjoint" in rule.settled_warnings or not rule.reads_cosines:
            continue
        if len(composite.names) == 1:
            rule.settled_warnings |= {"disjoint"}
            continue
        overlap = ops.convert_to_numpy(rule.cosines) != 0
        with_gradient = np.flatnonzero(np.diagonal(overlap))
        if len(with_gradient) < 2:
            continue  # too few had a gradient; the next step may tell
        rule.settled_warnings |= {"disjoint"}
        group = _connected(overlap, with_gradient[0])
        others = [i for i in with_gradient if i not in group]
        if others and rule.place != "parameters":
            some, rest = (quoted(composite.names[i] for i in g) for g in (group, others))
            warnings.warn(
                f"{type(rule).__name__} cannot see a conflict of {some} with {rest} in "
                f"'{composite.name}': they act on disjoint parts of {_place(rule)}. Take the "
                'gradients where both come together: gradients="<name of a layer>" or '
                '"parameters".',
                stacklevel=2,
            )


def warn_of_missing(readers: Iterable[Reader]) -> None:
    """Warns, once, of components that have no gradient where a rule reads it."""
    for composite, rule in readers:
        rule = rule.innermost
        without = rule.components_without_gradient()
        if "missing" in rule.settled_warnings or not without:
            continue
        rule.settled_warnings |= {"missing"}
        names = quoted(composite.names[i] for i in without)
        warnings.warn(
            f"{type(rule).__name__}, the weighting of '{composite.name}', reads gradients at "
            f"{_place(rule)}, where these components have none: {names}. It does not weigh them: "
            "they keep their fixed weights. If it should, take the gradients where all of them "
            'have one, such as gradients="parameters". '
            f"Received: gradients={rule.place!r}",
            stacklevel=2,
        )


def _place(rule: Weighting) -> str:
    """Where a rule reads gradients, in words."""
    place, layers = rule.place, rule.shared_layers
    if place == "output":
        return "the output"
    if place != "parameters":
        return f"layer '{place}'"
    return "the parameters" + (f" of {quoted(layers)}" if layers else "")


def _connected(overlap: "NDArray[np.bool_]", first: int) -> list[int]:
    """The components whose gradients overlap with that of `first`, directly or through others.

    Args:
        overlap: `(k, k)`, which gradients have a product other than 0.
        first: the index of a component.
    """
    found = {first}
    while True:
        more = {int(j) for i in found for j in np.flatnonzero(overlap[i])} - found
        if not more:
            return sorted(found)
        found |= more


def check_layers(model: Any, readers: Iterable[Reader]) -> None:
    """Raises if a rule names a layer that the model does not have, or that has no parameters."""
    layers = getattr(model, "layers", ())  # a trainer need not have them
    names = [layer.name for layer in layers]
    for composite, rule in readers:
        place = rule.place
        wanted = list(rule.shared_layers or [])
        wanted += [] if place in (None, "output", "parameters") else [place]
        unknown = [name for name in wanted if name not in names]
        without_parameters = [
            layer.name
            for layer in layers
            if layer.name in (rule.shared_layers or ()) and layer.built and not layer.weights
        ]
        if without_parameters:
            raise ValueError(
                f"`shared_layers` of the weighting of '{composite.name}' must be layers that have "
                f"parameters. Received: {without_parameters[0]!r}"
            )
        if unknown:
            raise ValueError(
                f"The weighting of '{composite.name}' reads gradients at a layer that the model "
                f"does not have. Its layers are {quoted(names)}; `gradients` may also be 'output' "
                f"or 'parameters'. Received: {unknown[0]!r}"
            )
