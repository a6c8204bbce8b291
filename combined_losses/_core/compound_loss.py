"""A loss made of losses as Keras and users' loops call it; tracked models call its node instead."""

import contextlib
import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from combined_losses._backend import backend, keras_private
from combined_losses._core.batch import Batch
from combined_losses._core.checks import (
    check_dtype,
    check_reduction,
    check_single_weight,
    check_trainable,
)
from combined_losses._core.config import deeply
from combined_losses._core.keras_types import KerasLossClass
from combined_losses._core.limited import Limited
from combined_losses._core.node import MadeOfNodes
from combined_losses._core.operators import Operators
from combined_losses._core.ranks import check_ranks, check_scope, whole
from combined_losses._core.reduction import REDUCTIONS_OF_COMPOUNDS
from combined_losses._core.short_call import short_loss
from combined_losses._core.step import LoopStep, call_in, loop_step, loop_step_of
from combined_losses._numerics.arrays import ArrayLike, Dtype, Tensor


class CompoundLoss(MadeOfNodes, Operators, Limited, KerasLossClass):
    """The public side of a loss made of losses (abstract); its node does the computation."""

    def __init__(self, name: str, reduction: str | None, dtype: Dtype) -> None:
        check_dtype(f"{type(self).__name__} '{name}'", dtype)
        super().__init__(name=name, dtype=dtype)
        check_reduction(name, reduction, REDUCTIONS_OF_COMPOUNDS)
        self.reduction = reduction
        self._warned_of_moves = False  # the warning that weights stand still outside of steps
        self._loop_steps = 0  # how many steps the user's loops have made
        keras_private.prepare_masks()

    def __repr__(self) -> str:
        return short_loss(self)

    # Weights inside, and their state.

    @property
    def settable_names(self) -> tuple[str, ...]:
        """The components whose weights can be changed, `outer/inner` for those inside."""
        return self._as_node().settable_names

    def weight_of(self, name: str) -> float:
        """The current fixed or scheduled weight of a component."""
        return self._as_node().weight_of(name)

    def set_weight(self, name: str, value: float) -> None:
        """Changes the weight of a component inside; see `CompositeLoss.set_weight`."""
        self._as_node().set_weight(name, value)

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """The state of the weights, which a tracked model has among its own variables."""
        return self._as_node().variables

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """What a rule or a loss learns. In a loop of your own give it to the optimizer.

        Those of a rule must not have weight decay.
        """
        return list(self._as_node().learned_variables)

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """The other `variables`: fixed weights, and the state of rules and schedules."""
        learned = {id(v) for v in self._as_node().learned_variables}
        return [v for v in self.variables if id(v) not in learned]

    # Steps in the user's own loop.

    @backend.as_written
    def training_step(self) -> contextlib.AbstractContextManager[None]:
        """One step of the rules and schedules inside; see `CompositeLoss.training_step`."""
        self._warned_of_moves = True  # calls outside the block are meant to move nothing
        return self._training_step()

    @contextlib.contextmanager
    def _training_step(self) -> Iterator[None]:
        with loop_step(self) as step:
            yield
        if step.made and backend.is_eager(self.variables):
            self._loop_steps += 1
            is_time_to_tell = self._loop_steps % 100 == 1  # rarely: it copies numbers to the host
            for composite in self._as_node().composites():
                composite.count_step_outside_fit()
                if is_time_to_tell:
                    composite.warn_of_values()
                    composite.warn_of_places()

    def end_epoch(self) -> None:
        """Ends an epoch for the rules inside; see `CompositeLoss.end_epoch`."""
        self._as_node().end_epoch()

    # Calls.

    def __call__(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike = None
    ) -> Tensor:
        """The total: `()`, or `(batch,)` if the reduction is "none"."""
        if not self._warned_of_moves and self._stands_still():
            self._warned_of_moves = True
            warnings.warn(
                f"The weights of '{self.name}' move in the training of cl.Model, cl.Sequential and "
                "cl.track(model), and in a loop of your own inside `with loss.training_step():`; "
                "here they stay as they are.",
                stacklevel=2,
            )
        elif self._is_left_untrained():
            self._warned_of_moves = True
            warnings.warn(
                f"'{self.name}' has variables that cl.Model, cl.Sequential and cl.track(model) "
                "train with the model; a plain Keras model leaves them as they are.",
                stacklevel=2,
            )
        check_ranks(self, lambda: self.trainable_variables)
        return whole(self._total_of(y_true, y_pred, sample_weight))

    _reducing_call = __call__  # see `Loss`

    def call(self, y_true: ArrayLike, y_pred: ArrayLike) -> Tensor:
        """The total of each sample, `(batch,)`, without sample weights, mask and reduction."""
        batch = Batch(y_true, y_pred, name=self.name).unweighted()
        return self._as_node().evaluate(batch, reduction="none").total

    @functools.cached_property
    def _learns(self) -> bool:
        return bool(self._as_node().learned_variables)

    @backend.as_written
    def _is_left_untrained(self) -> bool:
        """Whether a plain Keras model calls this loss, and will not train its variables."""
        learns = self._learns and not self._warned_of_moves
        return learns and keras_private.is_in_compiled_loss()

    @backend.as_written
    def _stands_still(self) -> bool:
        """Whether a call leaves weights as they are that move in training."""
        return self._as_node().moves and loop_step_of(self) is None

    @backend.as_written
    def _total_of(self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike) -> Tensor:
        node = self._as_node()
        constant = backend.is_compiling() and not self._is_threaded()
        node.compiled_in |= constant
        step = loop_step_of(self)
        batch = Batch(y_true, y_pred, sample_weight, self.name)
        if not node.chooses_outputs:
            check_single_weight(self.name, batch.sample_weight)
        with deeply():
            if step is None:
                return node.evaluate(batch).total
            if constant and node.moves:
                self._raise_constant()
            if node.moves:
                check_scope(backend.strategy(), self.name, self.variables)
            return self._evaluate_in(step, batch)

    def _evaluate_in(self, step: LoopStep, batch: Batch) -> Tensor:
        """The total in a step of a user's loop; only the first call in a step moves weights."""
        check_trainable(self.name, batch.y_pred)
        batch.training = not step.made
        with call_in(step):
            return self._as_node().evaluate(batch).total

    def _is_threaded(self) -> bool:
        """Whether a function that JAX compiles is given all variables of this loss."""
        return all(map(backend.is_threaded, self.variables))

    def _raise_constant(self) -> None:
        raise ValueError(
            f"'{self.name}' has weights that move, and a function that JAX compiles keeps them "
            "only where it is given `loss.variables` and returns them: call the loss in "
            "`keras.StatelessScope(state_mapping=...)` with all of them, see 'A loop of your own' "
            "in docs/other_models.md. Received: a compiled training_step() that reads variables "
            "of the loss from outside"
        )

    # Old files: earlier versions had the attribute `children`, under which Keras 3.15 wrote the
    # losses inside. Keras reads them from there only while the loss has such an attribute.

    _former_children: Any = None

    def load_own_variables(self, store: Any) -> None:
        """Called by Keras's saver before it goes on to the attributes."""
        self._leave_former_place()
        if keras_private.is_beside(store, "children") and not hasattr(self, "children"):
            inside = self._as_node().nodes_inside()
            self.children = [(node.loss_itself(), prefix) for node, prefix in inside]
            self._former_children = self.children

    def _leave_former_place(self) -> None:
        """Removes `children`, so that a new file has the losses inside in their present place."""
        for compound in self._as_node().compounds():
            loss: Any = compound.loss_itself()
            if loss._former_children is not None:  # else such an attribute is the user's
                del loss.children, loss._former_children
