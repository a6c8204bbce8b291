"""Checks of the arguments of a composite: its losses, weights, rule and reduction."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from combined_losses._core import checks, names
from combined_losses._core.arguments import as_child, component_name
from combined_losses._core.keras_types import CompositeReduction, KerasLoss, KerasScheduleClass
from combined_losses._core.reduction import PER_COMPONENT
from combined_losses.composite.weights import Weight
from combined_losses.weightings.base import Weighting

if TYPE_CHECKING:
    from combined_losses.composite.settable import SettableWeights


class Losses(dict[str, KerasLoss]):
    """The components of a composite by name; refuses every change.

    A dict, because Keras's saver walks over dicts and lists alone.
    """

    def __init__(self, losses: Mapping[str, KerasLoss], owner: str) -> None:
        super().__init__(losses)
        self._owner = owner

    def __reduce__(self) -> tuple[type["Losses"], tuple[Any, ...]]:
        # Without it, copying and unpickling fill an empty dict entry by entry, which is refused.
        return Losses, (dict(self), self._owner)

    def _refuse(self, *change: Any, **more: Any) -> NoReturn:
        raise TypeError(
            f"The `losses` of '{self._owner}' are fixed when it is made: make another one, for "
            "example CompositeLoss({**loss.losses, 'new': 'mse'}). "
            f"Received: a change of {next(iter(change), more)!r}"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse


def as_children(losses: object, owner: str) -> dict[str, KerasLoss]:
    """The argument `losses` of composite `owner` as losses by name."""
    if isinstance(losses, dict):
        pairs = list(losses.items())
        for name, _ in pairs:
            names.check_name(name, owner)
    elif isinstance(losses, (list, tuple)):
        pairs = _named(losses, owner)
    else:
        raise ValueError(
            f"`losses` of '{owner}' must be a dict from name to loss, or a list of losses. "
            f"Received: {losses!r}"
        )
    if not pairs:
        raise ValueError(f"`losses` of '{owner}' must not be empty. Received: {losses!r}")
    return {name: as_child(loss, owner, name) for name, loss in pairs}


def _named(losses: Iterable[Any], owner: str) -> list[tuple[str, Any]]:
    """The components of a list with their names.

    Names that losses got from the user must differ; names that are derived are made unique.
    """
    pairs: dict[str, Any] = {}
    names_by_user: set[str] = set()
    numbers: dict[str, int] = {}
    for loss in losses:
        if not isinstance(loss, str) and not callable(loss):
            as_child(loss, owner, None)  # raises
        name, is_by_user = component_name(loss)
        if is_by_user and name in names_by_user:
            raise ValueError(
                f"Two components of '{owner}' have the same name; rename one of them. "
                f"Received: {name!r} twice"
            )
        if is_by_user:
            names_by_user.add(name)
        names.check_name(name, owner)
        pairs[names.make_unique(name, pairs, numbers)] = loss
    return list(pairs.items())


def as_weights(weights: object, component_names: Sequence[str], owner: str) -> dict[str, Weight]:
    """The argument `weights` of composite `owner` by name; 1.0 for what is not given."""
    if weights is None:
        weights = {}
    if isinstance(weights, Weighting):
        raise ValueError(
            f"`weights` of '{owner}' are numbers or schedules; pass a rule as `weighting=`. "
            f"Received: {weights!r}"
        )
    if isinstance(weights, (list, tuple)):
        if len(weights) != len(component_names):
            raise ValueError(
                f"`weights` of '{owner}' must have one number for each of its "
                f"{len(component_names)} components {list(component_names)}. "
                f"Received: {len(weights)} weights, {weights!r}"
            )
        weights = dict(zip(component_names, weights, strict=True))
    if not isinstance(weights, dict):
        raise ValueError(
            f"`weights` of '{owner}' must be a dict from component name to number, or a list of "
            f"numbers. Received: {weights!r}"
        )
    unknown = [name for name in weights if name not in component_names]
    if unknown:
        raise ValueError(
            f"`weights` of '{owner}' must name components: {list(component_names)}. "
            f"Received: {unknown[0]!r}"
        )
    return {name: _as_weight(name, weights.get(name, 1.0)) for name in component_names}


def _as_weight(name: str, weight: object) -> Weight:
    """The weight of one component: a float, or a schedule as it is."""
    if isinstance(weight, KerasScheduleClass):
        return weight
    if isinstance(weight, Weighting):
        raise ValueError(
            f"The weight of component '{name}' must be a number or a schedule; pass a rule, which "
            f"weighs all components, as `weighting=`. Received: {weight!r}"
        )
    return checks.check_weight(name, weight)


def check_moving(composite: "SettableWeights", weighting: Weighting | None) -> None:
    """Raises if a rule would weigh single samples, or weights would move twice in a step."""
    if weighting is not None and composite.reduction in ("none", None):
        raise ValueError(
            f"A `weighting` weighs whole components, and the reduction 'none' of "
            f"'{composite.name}' gives values of single samples: leave one of them out. "
            f"Received: weighting={weighting!r}"
        )
    inside = [each for node, _ in composite.nodes_inside() for each in node.compounds()]
    with_moving_weights = [id(each) for each in inside if each.has_moving_weights]
    if len(set(with_moving_weights)) < len(with_moving_weights):
        raise ValueError(
            f"'{composite.name}' holds a composite with weights that move, and holds it twice: the "
            "weights would move twice in a step. Make a second composite like it. "
            f"Received: losses={list(composite.names)}"
        )
    learning = [id(each) for each in inside if each.learns]
    if len(set(learning)) < len(learning):
        raise ValueError(
            f"'{composite.name}' holds a loss with variables that are trained, and holds it twice: "
            "a file would give each place variables of its own. Make a second loss like it, or "
            f"give the one a larger weight. Received: losses={list(composite.names)}"
        )


def resolved_reduction(
    reduction: CompositeReduction, losses: Mapping[str, KerasLoss], owner: str
) -> CompositeReduction:
    """The reduction of a composite: "none" if each component keeps its own, which is "none"."""
    if reduction != PER_COMPONENT:
        return reduction
    unreduced = [key for key, loss in losses.items() if loss.reduction in ("none", None)]
    if unreduced and len(unreduced) < len(losses):
        raise ValueError(
            f"Components {unreduced} of '{owner}' have reduction 'none' and the others "
            "have not, so they cannot be added up. Give all of them a reduction, or pass "
            f"reduction='none' for the composite. Received: losses={list(losses)}"
        )
    return "none" if unreduced else reduction
