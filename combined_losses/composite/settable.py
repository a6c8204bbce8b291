"""The named components of a composite, and their weights, which can change while models train."""

import collections
import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras

from combined_losses._backend import keras_private
from combined_losses._core import checks
from combined_losses._core.compound import Compound, as_node
from combined_losses._core.keras_types import KerasLoss
from combined_losses._core.node import Inside, Node
from combined_losses.composite import files
from combined_losses.composite.listeners import Listener, Listeners
from combined_losses.composite.weights import Weight, Weights
from combined_losses.weightings.base import Weighting


class SettableWeights(Compound):
    """A node whose parts are named components with weights (abstract).

    Args:
        owner: the `CompositeLoss` whose node it is.
        losses: the components, by name.
        weighting: the rule that moves the weights, or None.
        on_nonfinite: `"propagate"` or `"skip"`, see `CompositeLoss`.

    Attributes:
        nodes: the components, by name.
        own_weights: their weights.
        ever_switched_off: the components that have ever had weight 0, or may have it by a schedule:
            see `WeightedSum._without_gradient_at_weight_0`.
        held_as_constants: whether a step on JAX that does not thread the variables has compiled the
            weights in as constants.
    """

    has_weights = True

    def __init__(
        self,
        owner: KerasLoss,
        losses: Mapping[str, KerasLoss],
        weighting: Weighting | None,
        on_nonfinite: Literal["propagate", "skip"],
    ) -> None:
        self._owner = owner
        self.weighting = weighting
        self.on_nonfinite: Literal["propagate", "skip"] = on_nonfinite
        self.nodes: dict[str, Node] = {name: as_node(name, loss) for name, loss in losses.items()}
        self.names: tuple[str, ...] = tuple(self.nodes)
        self._listeners = Listeners()
        self.held_as_constants: bool = False
        self._pending_changes: collections.deque[tuple[str, float]] = collections.deque()

    def _make_weights(self, given: Mapping[str, Weight]) -> None:
        """Called last, after all checks, because it binds the rule to this composite."""
        self.own_weights: Weights = Weights(given, self.weighting, self.dtype)
        fixed = self.own_weights.fixed.items()
        self.has_moving_weights: bool = self.own_weights.moves
        self.ever_switched_off: set[str] = {name for name, c in fixed if c == 0}
        self.ever_switched_off.update(self.own_weights.schedules)

    # A `Compound` that is its own loss has these as attributes; here the owner has them. mypy wants
    # no read-only property in place of an attribute that can be set.

    @property
    def name(self) -> str:  # type: ignore[override]
        return self._owner.name

    @property
    def reduction(self) -> str | None:  # type: ignore[override]
        return self._owner.reduction

    @property
    def dtype(self) -> str:
        return self._owner.dtype

    def loss_itself(self) -> KerasLoss:
        return self._owner

    # Its parts.

    def nodes_inside(self) -> Inside:
        return [(node, f"{name}/") for name, node in self.nodes.items()]

    @functools.cached_property
    def chooses_outputs(self) -> bool:
        """Whether a component chooses its outputs, so that the composite sees all of them."""
        return any(node.chooses_outputs for node in self.nodes.values())

    @functools.cached_property
    def component_names(self) -> tuple[str, ...]:
        """The names of the components, each followed by the parts of a nested composite."""
        flat = []
        for name, node in self.nodes.items():
            flat += [name, *(f"{name}/{inner}" for inner in node.component_names)]
        return tuple(flat)

    @property
    def part_parents(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for name, node in self.nodes.items():
            found[name], inner = None, node.part_parents
            found.update({f"{name}/{n}": f"{name}/{p}" if p else name for n, p in inner.items()})
        return found

    @property
    def part_weights(self) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for name, node in self.nodes.items():
            found[name] = self.own_weights.fixed[name]
            found.update({f"{name}/{part}": c for part, c in node.part_weights.items()})
        return found

    # Its state.

    @property
    def moves(self) -> bool:
        return self.own_weights.moves or super().moves

    @property
    def own_variables(self) -> Sequence[keras.Variable]:
        return self.own_weights.variables

    @property
    def learned_variables(self) -> Sequence[keras.Variable]:
        own = [] if self.weighting is None else self.weighting.trainable_variables
        return [*own, *super().learned_variables]

    # The weights.

    @property
    def settable_names(self) -> tuple[str, ...]:
        return (*self.names, *super().settable_names)

    @property
    def weights(self) -> dict[str, float]:
        """The current fixed or scheduled weight of each component."""
        with self._listeners.held_still() as none_runs:
            if not none_runs:
                return {**self.own_weights.fixed, **dict(self._pending_changes)}
            self._listeners.sync()
            return self.own_weights.as_floats()

    def weight_of(self, name: str) -> float:
        found = isinstance(name, str) and name in self.nodes
        return self.weights[name] if found else super().weight_of(name)

    @property
    def has_changed_weights(self) -> bool:
        """Whether `set_weight` has changed a weight since the composite was made."""
        return bool(self.own_weights.changed)

    def current_weights(self, all_of_them: bool = False) -> dict[str, float]:
        wanted = self.nodes if all_of_them else self.own_weights.changed
        # Every step logs the moving weights by itself.
        unwanted = () if all_of_them else self.own_weights.moving_names
        found = {
            name: weight
            for name, weight in self.own_weights.fixed.items()
            if name in wanted and name not in unwanted
        }
        return {**found, **super().current_weights(all_of_them)}

    # Changes.

    def add_listener(self, listener: Listener) -> None:
        """Called by the mixin with a model whose compiled steps hold the composite's state."""
        self._listeners.add(listener)

    def set_weight(self, name: str, value: float) -> None:
        if not isinstance(name, str) or name not in self.nodes:
            super().set_weight(name, value)
            return
        value = checks.check_weight(name, value)
        with self._listeners.held_still() as none_runs:
            if none_runs:
                self._change_weight(name, value)
            else:  # a running step holds the old weights; the new one is for the next step
                self._pending_changes.append((name, value))

    def apply_pending(self) -> None:
        """Called by the mixin between steps: makes the changes that other threads asked for."""
        while self._pending_changes:
            self._change_weight(*self._pending_changes.popleft())

    def _change_weight(self, name: str, value: float) -> None:
        if self.compiled_in and not self._listeners:
            self.compiled_in = False  # the warning is given once
            warnings.warn(
                f"'{self.name}' was compiled in a plain keras.Model or a function of your own, "
                "which on JAX keeps the weights that it was compiled with: the change has no "
                "effect there. Train it in cl.Model, cl.Sequential or cl.track(model).",
                stacklevel=4,
            )
        self._listeners.sync()
        weights = self.own_weights
        were_constants = not weights.changed and not weights.moves
        rebuild = were_constants or self.held_as_constants or name in weights.schedules
        weights.changed.add(name)
        self._assign({name: value}, rebuild)

    def _assign(self, weights: Mapping[str, float], rebuild: bool) -> None:
        """Gives components new weights.

        The steps of models are compiled anew if `rebuild` says so, or if a component gets weight 0
        for the first time.
        """
        off = {name for name, weight in weights.items() if weight == 0}
        newly_off = off - self.ever_switched_off
        self.ever_switched_off |= newly_off
        self.own_weights.assign(weights)
        if rebuild or newly_off:
            self._listeners.rebuild()

    # Files.

    def save(self, store: Any) -> None:
        self.own_weights.save(store)

    def load(self, store: Any) -> None:
        """A file without weights leaves them as they are."""
        if "weights" not in keras_private.names_in(store):
            return
        self._listeners.sync()
        weights, changed = files.weights_in(store, self.names)
        own = self.own_weights
        # Steps hold weights as constants only while none has been changed: that counts, too.
        rebuild = weights != own.fixed or changed != own.changed
        own.changed = changed
        own.load(store)
        self._assign({n: w for n, w in weights.items() if n not in own.schedules}, rebuild)

    # Its rule.

    def end_own_epoch(self) -> None:
        self.own_weights.steps_outside_fit = 0
        if self.weighting is not None:
            self._listeners.sync()
            self.weighting.end_epoch()
            self.own_weights.warn_of_values(self.name)

    def warn_of_values(self) -> None:
        self.own_weights.warn_of_values(self.name)

    def count_step_outside_fit(self) -> None:
        self.own_weights.count_step_outside_fit(self.name)
