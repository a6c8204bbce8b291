"""Calls of a loss made of losses, by Keras or in a loop of one's own; no tracked model calls it."""

import contextlib
import warnings
from typing import Any

from combined_losses._backend import backend
from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_single_weight, check_trainable
from combined_losses._core.config import deeply
from combined_losses._core.leaf import one_reduction
from combined_losses._core.node import Node
from combined_losses._core.step import call_in, loop_step, loop_step_of


class Called(Node):
    """What a `Compound` does when it is called (abstract)."""

    _warned_of_moves: bool  # that weights stand still outside of steps
    _compiled_in: bool  # whether a compiled function holds its weights as constants
    _loop_steps: int  # in loops of the user's
    composites: Any

    @backend.as_written
    def training_step(self):
        """One step of the rules and schedules inside; see `CompositeLoss.training_step`."""
        self._warned_of_moves = True  # calls outside the block are meant to move nothing
        return self._training_step()

    @contextlib.contextmanager
    def _training_step(self):
        with loop_step(self) as step:
            yield
        if step.made and backend.is_eager(self.variables):
            self._loop_steps += 1
            is_time_to_tell = self._loop_steps % 100 == 1  # it brings numbers to the host
            for composite in self.composites():
                composite.note_lone_step()
                if is_time_to_tell:
                    composite.warn_of_values()
                    composite.warn_of_places()

    def end_epoch(self):
        """Ends an epoch for the rules inside; see `CompositeLoss.end_epoch`."""
        for composite in self.composites():
            composite.end_own_epoch()

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
        return self.moves and loop_step_of(self) is None

    @backend.as_written
    def _total_of(self, y_true, y_pred, sample_weight):
        constant = backend.is_compiling() and not self._is_threaded()
        self._compiled_in |= constant
        step = loop_step_of(self)
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
        with call_in(step):
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
