"""What composites and wrappers share: losses made of losses, with parts that have names."""

import contextlib
import functools
import warnings
import weakref
from typing import Any

import keras

from combined_losses import _backend as backend
from combined_losses._backend import keras_private
from combined_losses._core.batch import Batch
from combined_losses._core.checks import (
    Limited,
    check_dtype,
    check_reduction,
    check_single_weight,
    check_trainable,
)
from combined_losses._core.component import Component, one_reduction
from combined_losses._core.config import LambdaError, check_no_lambda, deeply
from combined_losses._core.loop_steps import calling, opened, step_of
from combined_losses._core.loss import FunctionLoss, Loss
from combined_losses._core.operators import Operators
from combined_losses._core.reduction import PER_COMPONENT, REDUCTIONS
from combined_losses._core.traits import keras_traits


class Compound(Operators, Limited, keras.losses.Loss):
    """A loss made of losses (abstract).

    A subclass gives `_children`, `component_names` and `evaluate(batch, reduction, label)`.
    """

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

    def _check_reduction(self):
        check_reduction(self.name, self.reduction, (PER_COMPONENT, *REDUCTIONS))

    @property
    def routes(self):
        """Whether it chooses its outputs, and so sees all of them; Keras calls a loss for each."""
        return False

    @property
    def takes_one_output(self):
        """Whether one array may stand for the outputs that it reads, see `DeepSupervision`."""
        return any(child.takes_one_output for child, _ in self._compounds())

    weighting: Any = None  # the rule that moves the weights of its components

    # Kept, because each level of nested wrappers asks all below it.

    @functools.cached_property
    def needs_target(self):
        """Whether it has to be given `y_true`."""
        return any(getattr(child, "needs_target", True) for child, _ in self._children())

    @functools.cached_property
    def reads_target(self):
        """Whether it reads `y_true` where that is given."""
        own = ((getattr(child, "needs_target", True), child) for child, _ in self._children())
        return any(getattr(child, "reads_target", needed) for needed, child in own)

    # A method: Keras's saver walks over attributes, and would not come to an end.
    def judge(self):
        """The loss that judges in the end: that inside a wrapper which only changes the view."""
        return self

    def _children(self):
        """The losses it is made of: pairs of a loss and the prefix of the names of its parts.

        The prefix is None for a loss whose parts have no names here.

        A method for the sake of files: Keras's saver goes through the attributes, and writes a loss
        inside under the first that holds it. That must be `losses` or `loss` in every version of
        Keras; only some of them look into a list of pairs.
        """
        raise NotImplementedError

    @property
    def component_names(self):
        """The names of the parts that are reported, in order."""
        raise NotImplementedError

    # Whoever reports parts in a way of its own answers the next two for each of them.

    @property
    def part_parents(self):
        """Which reported part each one is a part of, by name; None: of this loss itself.

        The value of a parent is the weighted sum of its parts.
        """
        names = self.component_names
        outer = {name: name.rpartition("/")[0] for name in names}
        return {name: outer[name] if outer[name] in names else None for name in names}

    @property
    def part_weights(self):
        """What multiplies each reported part in the value of its parent, by name; None: unknown.

        Of a weight that moves by itself it is the fixed factor.
        """
        return dict.fromkeys(self.component_names)

    def evaluate(self, batch, reduction=PER_COMPONENT, label=None):
        """The `Evaluation` of a `Batch`; `reduction` is imposed, or `PER_COMPONENT`: its own."""
        raise NotImplementedError

    def unreduced(self, batch, imposed, label):
        """Values and the batch whose weights and mask are theirs; None where there are no such."""

    def choose_output(self, batch, label):
        """The batch with the one output that this loss reads, for a wrapper around it."""
        raise ValueError(
            f"Component '{label}' wraps a loss that reads the model, or several of its outputs: "
            f"wrap what is inside it instead. Received: {self!r}"
        )

    # Weights that move.

    @property
    def moves(self):
        """Whether weights inside change by themselves in the steps of training."""
        return any(child.moves for child, _ in self._compounds())

    @property
    def skips(self):
        """Whether a composite inside leaves out what is not finite, see `on_nonfinite`."""
        return any(child.skips for child, _ in self._compounds())

    @property
    def skipped_keys(self):
        """For each composite inside that does so the log keys of what it has skipped, a tuple."""
        pairs = [(p, keys) for child, p in self._named_compounds() for keys in child.skipped_keys]
        return [tuple(prefix + key for key in keys) for prefix, keys in pairs]

    def check_skips(self, model):
        """Called by the mixin: raises where what is skipped could not be cut off."""
        for child, _ in self._compounds():
            child.check_skips(model)

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
        """The log keys of what an `Evaluation` holds beside the components."""
        pairs = self._named_compounds()
        return tuple(prefix + key for child, prefix in pairs for key in child.extra_keys)

    @property
    def learned_variables(self):
        """What the model's optimizer trains of the rules inside."""
        return [v for child, _ in self._compounds() for v in child.learned_variables]

    def apply_pending(self):
        """Called by the mixin between steps: makes the changes that other threads asked for."""
        for child, _ in self._compounds():
            child.apply_pending()

    def warn_of_values(self):
        """Says, once, where a rule inside had a value that it is not made for."""
        for child, _ in self._compounds():
            child.warn_of_values()

    def warn_of_places(self):
        """Says, once, what rules inside do not see where they read gradients."""
        for child, _ in self._compounds():
            child.warn_of_places()

    @backend.as_written
    def training_step(self):
        """One step of the rules and schedules inside; see `CompositeLoss.training_step`."""
        self._warned_of_moves = True  # calls outside the block are meant to move nothing
        return self._training_step()

    @contextlib.contextmanager
    def _training_step(self):
        with opened(self) as step:
            yield
        if step.made and backend.is_eager(self.variables):
            self._loop_steps += 1
            self.note_lone_step()
            if self._loop_steps % 100 == 1:  # it brings numbers to the host
                self.warn_of_values()
                self.warn_of_places()

    def end_epoch(self):
        """Ends an epoch for the rules inside; see `CompositeLoss.end_epoch`."""
        for child, _ in self._compounds():
            child.end_epoch()

    def note_lone_step(self):
        """Called after a step outside `fit`: says, once, where a rule waits for ends of epochs."""
        for child, _ in self._compounds():
            child.note_lone_step()

    @one_reduction
    def __call__(self, y_true, y_pred, sample_weight=None):
        """The total: `()`, or `(batch,)` where the reduction is "none"."""
        # A tracked model does not come this way.
        if not self._warned_of_moves and self._stands_still():
            self._warned_of_moves = True
            warnings.warn(
                f"The weights of '{self.name}' move in the training of cl.Model, cl.Sequential and "
                "cl.track(model), and in a loop of your own inside `with loss.training_step():`; "
                "here they stay as they are.",
                stacklevel=2,
            )
        return self._total_of(y_true, y_pred, sample_weight)

    @backend.as_written
    def _stands_still(self):
        """Whether a call moves no weights, although there are some that move."""
        return self.moves and step_of(self) is None

    @backend.as_written
    def _total_of(self, y_true, y_pred, sample_weight):
        constant = backend.is_compiling() and not self._is_threaded()
        self._compiled_in |= constant
        step = step_of(self)
        batch = Batch(y_true, y_pred, sample_weight, self.name)
        if not self.routes:
            check_single_weight(self.name, batch.sample_weight)
        with deeply():
            if step is None:
                return self.evaluate(batch).total
            if constant and self.moves:
                self._raise_constant()
            return self._evaluate_in(step, batch)

    def _evaluate_in(self, step, batch):
        """The total in a step of a loop of the user's, which the first call in it makes."""
        check_trainable(self.name, batch.y_pred)
        batch.training = not step.made
        with calling(step):
            return self.evaluate(batch).total

    def _is_threaded(self):
        """Whether a function that JAX compiles is given all of the state."""
        return all(map(backend.is_threaded, self.variables))

    def _raise_constant(self):
        raise ValueError(
            f"'{self.name}' has weights that move, and a function that JAX compiles keeps them "
            "only where it is given `loss.variables` and returns them: call the loss in "
            "`keras.StatelessScope(state_mapping=...)` with all of them, see 'A loop of your own' "
            "in docs/other_models.md. Received: a compiled training_step() that reads variables "
            "of the loss from outside"
        )

    def call(self, y_true, y_pred):
        """The total of each sample, `(batch,)`, without weights, mask and reduction."""
        batch = Batch(y_true, y_pred, name=self.name).unweighted()
        return self.evaluate(batch, reduction="none").total

    # Its state, and that of the compounds inside.

    def _compounds(self):
        return [(child, p) for child, p in self._children() if isinstance(child, Compound)]

    def _named_compounds(self):
        return [(child, prefix) for child, prefix in self._compounds() if prefix is not None]

    def find_readers(self):
        """The functions and losses of the user's that are called in it, each as it was given."""
        return [reader for child, _ in self._children() for reader in readers_of(child)]

    @property
    def own_variables(self):
        """The state of this loss alone."""
        return []

    @property
    def variables(self):
        """The state of this loss and of those inside, which the mixin gives to the model."""
        nested = [child.variables for child, _ in self._compounds()]
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
        inside = [child for child, _ in self._compounds() if child.moves]
        return [v for child in inside for v in child.variables]

    def current_weights(self, all_of_them=False):
        """The weights that have been changed, which logs show, or all; those inside too."""
        found = {}
        for child, prefix in self._named_compounds():
            inner = child.current_weights(all_of_them).items()
            found.update({prefix + name: weight for name, weight in inner})
        return found

    @property
    def settable_names(self):
        """The components inside whose weights can be changed."""
        pairs = self._named_compounds()
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
        for child, prefix in self._named_compounds():
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
            f"'{self.name}' {what} possible for "
            f"{', '.join(map(repr, self.settable_names)) or 'none'}. Received: {name!r}"
        )

    def warn_of_model(self, model):
        """Called by the mixin at `compile`: says what is going to surprise."""
        self._warn_of_lambda()
        for composite in moving_composites(self):
            composite._warn_of_second(model)

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
        """Raises where a function inside is a lambda; `label` names the component that this is.

        Without making a config, for which Keras imports TensorFlow on every backend.
        """
        for child, prefix in self._children():
            name = prefix[:-1] if prefix else label
            if isinstance(child, Compound):
                child.check_lambdas(name)
            elif isinstance(child, FunctionLoss):
                check_no_lambda(child.function, name)

    # Files of before: Keras 3.15 wrote the losses inside under `children`, an attribute then, and
    # reads them there if there is such an attribute.

    def load_own_variables(self, store):
        """Called by Keras's saver, before it goes on to the attributes."""
        self._leave_former_place()
        if keras_private.is_beside(store, "children") and not hasattr(self, "children"):
            self.children = self._former_children = self._children()

    def _leave_former_place(self):
        """What is saved has the losses inside where they belong now."""
        if self._former_children is not None:  # else an attribute of that name is the user's
            del self.children, self._former_children
        for child, _ in self._compounds():
            child._leave_former_place()

    _former_children: Any = None

    def add_listener(self, listener):
        """Called by the mixin: a model whose compiled steps hold the state of this loss."""
        for child, _ in self._compounds():
            child.add_listener(listener)


def as_node(name, loss):
    """What can be evaluated on a `Batch`: a compound itself, or the `Component` of a loss."""
    if isinstance(loss, Compound):
        return loss
    return Component(name, loss, traits_of(loss))


def traits_of(loss):
    """What may be relied on of a loss, or of the one that judges inside wrappers."""
    loss = loss.judge() if isinstance(loss, Compound) else loss
    return loss.traits if isinstance(loss, Loss) else keras_traits(loss)


def has_channels(loss):
    """Whether a loss, or one of those inside, needs the axis of the channels."""
    if isinstance(loss, Compound):
        return any(has_channels(child) for child, _ in loss._children())
    return traits_of(loss).has_channels


def has_whole_rows(loss):
    """Whether rows of targets are objects for a loss, or for one of those inside."""
    if isinstance(loss, Compound):
        return any(has_whole_rows(child) for child, _ in loss._children())
    return traits_of(loss).whole_rows


def layout_of(loss):
    """How predictions belong to targets for a loss, or for the first inside that says so."""
    if isinstance(loss, Compound):
        return next(filter(None, (layout_of(child) for child, _ in loss._children())), None)
    return traits_of(loss).layout


def rescaling_of(loss):
    """The loss, or the first inside, that says how its predictions change with the unit."""
    if isinstance(loss, Compound):
        return next(filter(None, (rescaling_of(child) for child, _ in loss._children())), None)
    own = isinstance(loss, Loss) and type(loss).rescaled is not Loss.rescaled
    return loss if own else None


def readers_of(loss):
    """The functions and losses of the user's that are called in a loss, each as it was given."""
    inner = isinstance(loss, Compound)
    return loss.find_readers() if inner else [getattr(loss, "function", loss)]


def moving_composites(loss):
    """The composites in `loss`, or itself, whose own weights move; each as often as it is there."""
    if not isinstance(loss, Compound):
        return []
    own = [loss] if getattr(loss, "has_moving_weights", False) else []
    return [*own, *(found for child, _ in loss._children() for found in moving_composites(child))]


def weighted_means(loss, label, path=""):
    """The names of what is a mean over sample weights: `label`, or parts of that loss.

    `path` is what the names of its parts begin with.
    """
    if loss.reduction == "mean_with_sample_weight":
        return [label]
    if not isinstance(loss, Compound) or loss.reduction != PER_COMPONENT:
        return []
    found = []
    for child, prefix in loss._children():
        inner = path + (prefix or "")
        found.extend(weighted_means(child, inner[:-1] if prefix else label, inner))
    return found
