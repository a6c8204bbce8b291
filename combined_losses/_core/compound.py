"""`Compound`: the node of a loss that is made of losses, such as a composite or a wrapper."""

import functools
import warnings
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_reduction
from combined_losses._core.compound_loss import CompoundLoss
from combined_losses._core.config import LambdaError
from combined_losses._core.keras_types import KerasLoss
from combined_losses._core.leaf import Leaf
from combined_losses._core.loss import Loss
from combined_losses._core.names import quoted
from combined_losses._core.node import Inside, Node, node_of
from combined_losses._core.reduction import PER_COMPONENT, REDUCTIONS_OF_COMPOUNDS
from combined_losses._core.traits import Traits, keras_traits
from combined_losses._numerics.arrays import Tensor


class Compound(Node):
    """A node made of nodes (abstract).

    A subclass gives `nodes_inside`, `component_names` and `evaluate(batch, reduction, label)`.
    """

    # The reduction and the dtype of its loss.
    reduction: str | None
    if TYPE_CHECKING:

        @property
        def dtype(self) -> str: ...

    is_made_of_losses = True
    is_beyond_output = False  # whether it reaches the model by more than its output
    calls_host = False  # whether every call waits for a function of NumPy arrays
    has_moving_weights: bool = False  # whether weights of its own components move
    learns: bool = False  # whether it has variables of its own that the optimizer trains
    compiled_in = False  # whether a compiled function holds its weights as constants
    weighting: Any = None  # the rule that moves the weights of its components
    _warned_of_lambda = False
    _last_model: Any = None  # a weak reference to the model that it was compiled in last

    def _check_reduction(self) -> None:
        if self.reduction not in REDUCTIONS_OF_COMPOUNDS:
            check_reduction(self.name, self.reduction, REDUCTIONS_OF_COMPOUNDS)

    @property
    def takes_one_output(self) -> bool:
        return any(node.takes_one_output for node, _ in self.nodes_inside())

    # Cached, because each level of nested wrappers asks all levels below it.

    @functools.cached_property
    def needs_target(self) -> bool:
        return any(node.needs_target for node, _ in self.nodes_inside())

    @functools.cached_property
    def reads_target(self) -> bool:
        return any(node.reads_target for node, _ in self.nodes_inside())

    def nodes_inside(self) -> Inside:
        """The nodes it is made of: pairs of a node and the prefix of the names of its parts.

        The prefix is None for a node whose parts are not reported. This is a method and not a
        property, because Keras's saver goes through the attributes of a loss and writes each loss
        inside under the first attribute that holds it. So that files stay readable, that must be
        `losses` or `loss`.
        """
        raise NotImplementedError

    # A subclass that reports parts under other names overrides the next two.

    @property
    def part_parents(self) -> dict[str, str | None]:
        """See `Node`. The value of a parent is the weighted sum of its parts."""
        names = self.component_names
        outer = {name: name.rpartition("/")[0] for name in names}
        return {name: outer[name] if outer[name] in outer else None for name in names}

    @property
    def part_weights(self) -> dict[str, float | None]:
        """See `Node`. For a weight that moves by itself it is the fixed factor."""
        return dict.fromkeys(self.component_names)

    def unreduced(self, batch: Batch, imposed: bool, label: str) -> tuple[Tensor, Batch] | None:
        return None

    def choose_output(self, batch: Batch, label: str) -> Batch:
        """The batch of the one output that this loss reads, for a wrapper around it."""
        raise ValueError(
            f"Component '{label}' wraps a loss that reads the model, or several of its outputs: "
            f"wrap what is inside it instead. Received: {self.loss_itself()!r}"
        )

    # Weights that move.

    @property
    def moves(self) -> bool:
        return any(node.moves for node, _ in self.nodes_inside())

    @property
    def skips(self) -> bool:
        return any(node.skips for node, _ in self.nodes_inside())

    @property
    def skipped_keys(self) -> list[tuple[str, ...]]:
        pairs = [(p, keys) for node, p in self._named_inside() for keys in node.skipped_keys]
        return [tuple(prefix + key for key in keys) for prefix, keys in pairs]

    def _refuse_moving(self) -> None:
        """Raises if weights inside move or components may be skipped.

        For wrappers that evaluate their loss several times in a step.
        """
        if self.skips:
            raise ValueError(
                f"{type(self).__name__} ('{self.name}') evaluates its loss several times in a "
                "step, and has no place in the logs for what was skipped in each: put "
                "on_nonfinite='skip' on a composite around it. "
                "Received: a loss with on_nonfinite='skip'"
            )
        if self.moves:
            raise ValueError(
                f"{type(self).__name__} ('{self.name}') evaluates its loss several times in a "
                "step, and weights that move would move as often: put the schedule or the "
                "weighting on a composite around it. Received: a loss with weights that move"
            )

    @property
    def extra_keys(self) -> tuple[str, ...]:
        pairs = self._named_inside()
        return tuple(prefix + key for node, prefix in pairs for key in node.extra_keys)

    @property
    def learned_variables(self) -> Sequence[keras.Variable]:
        return [v for node, _ in self.nodes_inside() for v in node.learned_variables]

    # Its state, and that of the compounds inside.

    def _named_inside(self) -> list[tuple[Node, str]]:
        return [(node, prefix) for node, prefix in self.nodes_inside() if prefix is not None]

    def compounds(self) -> list["Compound"]:
        return [self, *self._compounds_inside]

    @functools.cached_property
    def _compounds_inside(self) -> list["Compound"]:
        return [each for node, _ in self.nodes_inside() for each in node.compounds()]

    def composites(self) -> list["Compound"]:
        """The composites in it, itself first if it is one. Only composites have weights."""
        return [each for each in self.compounds() if each.has_weights]

    # Only composites are asked for these; see `composite.settable` and `composite.total`.

    def end_own_epoch(self) -> None:
        """Ends an epoch for its own rule."""
        raise NotImplementedError

    def count_step_outside_fit(self) -> None:
        """Called after a step outside `fit`: warns, once, if a rule waits for ends of epochs."""
        raise NotImplementedError

    def warn_of_values(self) -> None:
        """Warns, once, of component values that its rule is not made for."""
        raise NotImplementedError

    def warn_of_places(self) -> None:
        """Warns, once, of components without a gradient at the place where its rule reads them."""
        raise NotImplementedError

    def check_skips(self, model: keras.Model) -> None:
        """Called by the mixin: raises if a component reads the model past the predictions."""
        raise NotImplementedError

    def add_listener(self, listener: Any) -> None:
        """Called by the mixin with a model whose compiled steps hold the composite's state."""
        raise NotImplementedError

    def apply_pending(self) -> None:
        """Called by the mixin between steps: makes the changes that other threads asked for."""
        raise NotImplementedError

    def leaves(self) -> list[Leaf]:
        return [leaf for node, _ in self.nodes_inside() for leaf in node.leaves()]

    def find_readers(self) -> list[Any]:
        return [reader for node, _ in self.nodes_inside() for reader in node.find_readers()]

    @property
    def own_variables(self) -> Sequence[keras.Variable]:
        """The variables of this loss itself, without those of the losses inside."""
        return []

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """The state of this loss and of those inside, which the mixin gives to the model."""
        nested = [node.variables for node, _ in self.nodes_inside()]
        return [*self.own_variables, *(v for variables in nested for v in variables)]

    @property
    def variables_that_move_inside(self) -> Sequence[keras.Variable]:
        """The state of the losses inside whose weights move."""
        inside = [node for node, _ in self.nodes_inside() if node.moves]
        return [v for node in inside for v in node.variables]

    def current_weights(self, all_of_them: bool = False) -> dict[str, float]:
        found: dict[str, float] = {}
        for node, prefix in self._named_inside():
            inner = node.current_weights(all_of_them).items()
            found.update({prefix + name: weight for name, weight in inner})
        return found

    @property
    def settable_names(self) -> tuple[str, ...]:
        pairs = self._named_inside()
        return tuple(prefix + name for node, prefix in pairs for name in node.settable_names)

    def weight_of(self, name: str) -> float:
        """The current fixed or scheduled weight of a component inside."""
        node, inner = self._find(name)
        return node.weight_of(inner)

    def set_weight(self, name: str, value: float) -> None:
        """Changes the weight of a component inside; see `CompositeLoss.set_weight`."""
        node, inner = self._find(name)
        node.set_weight(inner, value)

    def _find(self, name: str) -> tuple["Compound", str]:
        """The compound inside that has this component with a weight to set, and its name there."""
        for node, prefix in self._named_inside():
            inner = name[len(prefix) :] if isinstance(name, str) else ""
            if prefix + inner == name and inner in node.settable_names:
                assert isinstance(node, Compound)  # a leaf has no weights
                return node, inner
        if isinstance(name, str) and name in self.component_names:
            what = (
                "has a part of this name, with the weight that its wrapper was given; changes are"
            )
        else:
            what = "has no component of this name; changes are"
        raise ValueError(
            f"'{self.name}' {what} possible for {quoted(self.settable_names)}. Received: {name!r}"
        )

    def end_epoch(self) -> None:
        """Ends an epoch for the rules inside."""
        for composite in self.composites():
            composite.end_own_epoch()

    def warn_of_model(self, model: keras.Model) -> None:
        """Called by the mixin at `compile`: warns of what will surprise the user later."""
        self._warn_of_lambda()
        for compound in self.compounds():
            if compound.has_moving_weights or compound.learns:
                compound._warn_of_second(model)

    def _warn_of_second(self, model: keras.Model) -> None:
        last, self._last_model = self._last_model, weakref.ref(model)
        if last is not None and last() is not model:
            warnings.warn(
                f"'{self.name}' has {'variables' if self.learns else 'weights'} that move and was "
                "compiled in another model before: this one begins with the state that they have "
                "there. Give it a loss of its own, for example "
                f"{type(self.loss_itself()).__name__}.from_config(loss.get_config()).",
                stacklevel=5,
            )

    def _warn_of_lambda(self) -> None:
        if self._warned_of_lambda:
            return
        try:
            self.check_lambdas(self.name)
        except LambdaError as error:
            self._warned_of_lambda = True
            warnings.warn(
                f"A model with '{self.name}' cannot be saved, so that ModelCheckpoint would fail "
                f"after the first epoch. {error}",
                stacklevel=5,
            )

    def check_lambdas(self, label: str) -> None:
        # A config would find lambdas too, but Keras imports TensorFlow to make one.
        for node, prefix in self.nodes_inside():
            node.check_lambdas(prefix[:-1] if prefix else label)


class LossAsNode(Compound, CompoundLoss):
    """A loss made of losses that is its own node, such as a wrapper (abstract)."""

    def _as_node(self) -> Compound:
        return self

    def loss_itself(self) -> KerasLoss:
        return self


def as_node(name: str, loss: KerasLoss) -> Node:
    """The node of a loss: a `Compound` if the loss is made of losses, else a new `Leaf`."""
    own = node_of(loss)
    return own if own is not None else Leaf(name, loss, traits_of(loss))


def traits_of(loss: KerasLoss) -> Traits:
    """The `Traits` of a loss, or of the innermost loss inside wrappers."""
    own = node_of(loss)
    loss = loss if own is None else own.innermost_loss()
    return loss.traits if isinstance(loss, Loss) else keras_traits(loss)


def leaves_of(loss: KerasLoss) -> list[Leaf]:
    """The leaves in a loss; a loss that is not made of others is one."""
    return as_node(loss.name, loss).leaves()


def has_channels(loss: KerasLoss) -> bool:
    """Whether a loss, or one of those inside, needs an axis of channels."""
    return any(leaf.traits.has_channels for leaf in leaves_of(loss))


def has_whole_rows(loss: KerasLoss) -> bool:
    """Whether a loss, or one of those inside, takes each row of targets as one object."""
    return any(leaf.traits.whole_rows for leaf in leaves_of(loss))


def layout_of(loss: KerasLoss) -> str | None:
    """The `prediction_layout` of a loss, or of the first loss inside that has one."""
    return next((leaf.traits.layout for leaf in leaves_of(loss) if leaf.traits.layout), None)


def rescaling_of(loss: KerasLoss) -> Loss | None:
    """The loss, or the first one inside, that overrides `Loss.rescaled`; None if none does."""
    own = (leaf.loss for leaf in leaves_of(loss) if isinstance(leaf.loss, Loss))
    return next((each for each in own if type(each).rescaled is not Loss.rescaled), None)


def weighted_means(node: Node, label: str, path: str = "") -> list[str]:
    """The names of the losses in a node that are means over sample weights.

    `label` names the node itself; the names of its parts begin with `path`.
    """
    reduction = node.loss_itself().reduction
    if reduction == "mean_with_sample_weight":
        return [label]
    found = []
    for inside, prefix in node.nodes_inside() if reduction == PER_COMPONENT else ():
        inner = path + (prefix or "")
        found.extend(weighted_means(inside, inner[:-1] if prefix else label, inner))
    return found
