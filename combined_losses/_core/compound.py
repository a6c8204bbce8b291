"""What composites and wrappers share: losses made of losses, with parts that have names."""

import functools
import warnings
import weakref
from typing import Any

from combined_losses._backend import keras_private
from combined_losses._core.calls import Called
from combined_losses._core.checks import (
    Limited,
    check_dtype,
    check_reduction,
)
from combined_losses._core.config import LambdaError
from combined_losses._core.keras_types import KerasLoss
from combined_losses._core.leaf import Leaf
from combined_losses._core.loss import Loss
from combined_losses._core.names import quoted
from combined_losses._core.operators import Operators
from combined_losses._core.reduction import PER_COMPONENT, REDUCTIONS
from combined_losses._core.short_call import short_loss
from combined_losses._core.traits import keras_traits


class Compound(Called, Operators, Limited, KerasLoss):
    """A loss made of losses (abstract).

    A subclass gives `nodes_inside`, `component_names` and `evaluate(batch, reduction, label)`.
    """

    is_made_of_losses = True
    is_beyond_output = False  # whether it acts on the model by more than its output

    def __init__(self, name, reduction, dtype):
        check_dtype(f"{type(self).__name__} '{name}'", dtype)
        super().__init__(name=name, dtype=dtype)
        self.reduction = reduction
        self._check_reduction()
        self._compiled_in = False
        self._warned_of_lambda = False
        self._first_model: Any = None  # a weak reference to the model that it was compiled in first
        self._warned_of_moves = False
        self._loop_steps = 0  # in loops of the user's
        keras_private.prepare_masks()

    def __repr__(self) -> str:
        return short_loss(self)

    def _check_reduction(self):
        check_reduction(self.name, self.reduction, (PER_COMPONENT, *REDUCTIONS))

    @property
    def takes_one_output(self):
        return any(child.takes_one_output for child, _ in self.nodes_inside())

    weighting: Any = None  # the rule that moves the weights of its components
    has_moving_weights: Any = False  # whether weights of its own move

    # Kept, because each level of nested wrappers asks all below it.

    @functools.cached_property
    def needs_target(self):
        return any(child.needs_target for child, _ in self.nodes_inside())

    @functools.cached_property
    def reads_target(self):
        return any(child.reads_target for child, _ in self.nodes_inside())

    def loss_itself(self):
        return self

    def nodes_inside(self):
        """The nodes it is made of: pairs of a node and the prefix of the names of its parts.

        The prefix is None for a node whose parts have no names here. A method for the sake of
        files: Keras's saver goes through the attributes, and writes a loss inside under the first
        that holds it. That must be `losses` or `loss` in every version of Keras.
        """
        raise NotImplementedError

    # Whoever reports parts in a way of its own answers the next two for each of them.

    @property
    def part_parents(self):
        """See `Node`; the value of a parent is the weighted sum of its parts."""
        names = self.component_names
        outer = {name: name.rpartition("/")[0] for name in names}
        return {name: outer[name] if outer[name] in names else None for name in names}

    @property
    def part_weights(self):
        """See `Node`; of a weight that moves by itself it is the fixed factor."""
        return dict.fromkeys(self.component_names)

    def unreduced(self, batch, imposed, label):
        return None

    def choose_output(self, batch, label):
        """The batch with the one output that this loss reads, for a wrapper around it."""
        raise ValueError(
            f"Component '{label}' wraps a loss that reads the model, or several of its outputs: "
            f"wrap what is inside it instead. Received: {self!r}"
        )

    # Weights that move.

    @property
    def moves(self):
        return any(child.moves for child, _ in self.nodes_inside())

    @property
    def skips(self):
        return any(child.skips for child, _ in self.nodes_inside())

    @property
    def skipped_keys(self):
        pairs = [(p, keys) for child, p in self._named_inside() for keys in child.skipped_keys]
        return [tuple(prefix + key for key in keys) for prefix, keys in pairs]

    def _refuse_moving(self):
        """For wrappers that evaluate a loss several times in a step."""
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
    def extra_keys(self):
        pairs = self._named_inside()
        return tuple(prefix + key for child, prefix in pairs for key in child.extra_keys)

    @property
    def learned_variables(self):
        return [v for child, _ in self.nodes_inside() for v in child.learned_variables]

    # Its state, and that of the compounds inside.

    def _named_inside(self):
        return [(child, prefix) for child, prefix in self.nodes_inside() if prefix is not None]

    def compounds(self):
        return [self, *self._compounds_inside]

    @functools.cached_property
    def _compounds_inside(self):
        return [each for child, _ in self.nodes_inside() for each in child.compounds()]

    def composites(self):
        """The composites in it, itself first where it is one: they have weights."""
        return [each for each in self.compounds() if each.has_weights]

    def leaves(self):
        return [leaf for child, _ in self.nodes_inside() for leaf in child.leaves()]

    def find_readers(self):
        return [reader for child, _ in self.nodes_inside() for reader in child.find_readers()]

    @property
    def own_variables(self):
        """The state of this loss alone."""
        return []

    @property
    def variables(self):
        """The state of this loss and of those inside, which the mixin gives to the model."""
        nested = [child.variables for child, _ in self.nodes_inside()]
        return [*self.own_variables, *(v for variables in nested for v in variables)]

    @property
    def trainable_variables(self):
        """What a rule learns, for the optimizer of a loop of one's own, without weight decay."""
        return list(self.learned_variables)

    @property
    def non_trainable_variables(self):
        """The rest of `variables`: fixed weights, and what rules and schedules remember."""
        learned = {id(v) for v in self.learned_variables}
        return [v for v in self.variables if id(v) not in learned]

    @property
    def variables_that_move_inside(self):
        """The state of the losses inside whose weights move."""
        inside = [child for child, _ in self.nodes_inside() if child.moves]
        return [v for child in inside for v in child.variables]

    def current_weights(self, all_of_them=False):
        found = {}
        for child, prefix in self._named_inside():
            inner = child.current_weights(all_of_them).items()
            found.update({prefix + name: weight for name, weight in inner})
        return found

    @property
    def settable_names(self):
        pairs = self._named_inside()
        return tuple(prefix + name for child, prefix in pairs for name in child.settable_names)

    def weight_of(self, name):
        """The current fixed or scheduled weight of a component inside."""
        child, inner = self._find(name)
        return child.weight_of(inner)

    def set_weight(self, name, value):
        """Changes the weight of a component inside; see `CompositeLoss.set_weight`."""
        child, inner = self._find(name)
        child.set_weight(inner, value)

    def _find(self, name):
        """The compound that has a component whose weight can be changed, and its name there."""
        for child, prefix in self._named_inside():
            inner = name[len(prefix) :] if isinstance(name, str) else ""
            if prefix + inner == name and inner in child.settable_names:
                return child, inner
        if isinstance(name, str) and name in self.component_names:
            what = (
                "has a part of this name, with the weight that its wrapper was given; changes are"
            )
        else:
            what = "has no component of this name; changes are"
        raise ValueError(
            f"'{self.name}' {what} possible for {quoted(self.settable_names)}. Received: {name!r}"
        )

    def warn_of_model(self, model):
        """Called by the mixin at `compile`: says what is going to surprise."""
        self._warn_of_lambda()
        for compound in self.compounds():
            if compound.has_moving_weights:
                compound._warn_of_second(model)

    def _warn_of_second(self, model):
        first, self._first_model = self._first_model, weakref.ref(model)
        if first is not None and first() is not model:
            warnings.warn(
                f"'{self.name}' has weights that move and was compiled in another model before: "
                "this one begins with the weights and the state that they have there. Give it a "
                "composite of its own, for example CompositeLoss.from_config(loss.get_config()).",
                stacklevel=5,
            )

    def _warn_of_lambda(self):
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

    def check_lambdas(self, label):
        # Without making a config, for which Keras imports TensorFlow on every backend.
        for child, prefix in self.nodes_inside():
            child.check_lambdas(prefix[:-1] if prefix else label)

    # Files of before: Keras 3.15 wrote the losses inside under `children`, an attribute then, and
    # reads them there if there is such an attribute.

    def load_own_variables(self, store):
        """Called by Keras's saver, before it goes on to the attributes."""
        self._leave_former_place()
        if keras_private.is_beside(store, "children") and not hasattr(self, "children"):
            pairs = [(node.loss_itself(), prefix) for node, prefix in self.nodes_inside()]
            self.children = self._former_children = pairs

    def _leave_former_place(self):
        """What is saved has the losses inside where they belong now."""
        for compound in self.compounds():
            # Else an attribute of that name is the user's.
            if compound._former_children is not None:
                del compound.children, compound._former_children

    _former_children: Any = None


def as_node(name, loss):
    """What can be evaluated on a `Batch`: a compound itself, or the `Leaf` of a loss."""
    if isinstance(loss, Compound):
        return loss
    return Leaf(name, loss, traits_of(loss))


def traits_of(loss):
    """What may be relied on of a loss, or of the one that judges inside wrappers."""
    loss = loss.judge() if isinstance(loss, Compound) else loss
    return loss.traits if isinstance(loss, Loss) else keras_traits(loss)


def leaves_of(loss):
    """The leaves in a loss; a loss that is not made of others is one."""
    return as_node(loss.name, loss).leaves()


def has_channels(loss):
    """Whether a loss, or one of those inside, needs the axis of the channels."""
    return any(leaf.traits.has_channels for leaf in leaves_of(loss))


def has_whole_rows(loss):
    """Whether rows of targets are objects for a loss, or for one of those inside."""
    return any(leaf.traits.whole_rows for leaf in leaves_of(loss))


def layout_of(loss):
    """How predictions belong to targets for a loss, or for the first inside that says so."""
    return next((leaf.traits.layout for leaf in leaves_of(loss) if leaf.traits.layout), None)


def rescaling_of(loss):
    """The loss, or the first inside, that says how its predictions change with the unit."""
    own = (leaf.loss for leaf in leaves_of(loss) if isinstance(leaf.loss, Loss))
    return next((each for each in own if type(each).rescaled is not Loss.rescaled), None)


def weighted_means(node, label, path=""):
    """The names of what is a mean over sample weights: `label`, or parts of that node.

    `path` is what the names of its parts begin with.
    """
    reduction = node.loss_itself().reduction
    if reduction == "mean_with_sample_weight":
        return [label]
    found = []
    for child, prefix in node.nodes_inside() if reduction == PER_COMPONENT else ():
        inner = path + (prefix or "")
        found.extend(weighted_means(child, inner[:-1] if prefix else label, inner))
    return found
