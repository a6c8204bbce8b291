"""The base of losses with variables that are trained together with the model."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from combined_losses._backend import keras_private
from combined_losses._core.keras_types import Reduction
from combined_losses._core.loss import Loss
from combined_losses._core.names import snake_case
from combined_losses._numerics.arrays import ArrayLike, Dtype
from combined_losses.wrappers.base import Wrapper


class OfLearned(Wrapper):
    """A loss that reads variables, which the optimizer of a tracked model trains (abstract).

    It is a `Wrapper` around the formula, although no user gives it that: so its variables are
    state of the model, in files, steps on JAX and on replicas, as those of a rule are.

    Args:
        formula: the loss of the batch that `see` gives; it holds the variables too.
        learned: the variables, by the names that they have in files.
    """

    def __init__(
        self,
        formula: Loss,
        learned: Mapping[str, keras.Variable],
        reduction: Reduction,
        name: str | None,
        dtype: Dtype,
    ) -> None:
        own = name or snake_case(type(self).__name__)
        formula.reduction, formula.name = reduction, own
        super().__init__(formula, reduction, own, dtype)
        self.name_is_given = name is not None
        self._learned = dict(learned)
        self.learns: bool = bool(learned)

    @property
    def own_variables(self) -> Sequence[keras.Variable]:
        return list(self._learned.values())

    @property
    def learned_variables(self) -> Sequence[keras.Variable]:
        return self.own_variables

    def save_own_variables(self, store: Any) -> None:
        for name, variable in self._learned.items():
            store[name] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store: Any) -> None:
        """Called by Keras's saver; what the file has not stays as it is."""
        super().load_own_variables(store)
        for name in keras_private.names_in(store):
            if name in self._learned:
                self._learned[name].assign(store[name])


def learned_variable(name: str, value: ArrayLike, dtype: str) -> keras.Variable:
    """A variable that is trained; each replica has the gradient of its part of the batch."""
    return keras.Variable(value, dtype=dtype, trainable=True, name=name, aggregation="mean")
