"""What a rule remembers from step to step."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np
from keras import ops

from combined_losses._backend import keras_private
from combined_losses._numerics.arrays import ArrayLike, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

StateTensors: TypeAlias = dict[str, Tensor]
"""The state of a rule as it is in one step: tensors by name."""

RuleOutput: TypeAlias = Tensor | tuple[Tensor, StateTensors]
"""What a rule returns: the weights `(k,)`, or the weights and the new state."""

FixedWeights: TypeAlias = ArrayLike | Callable[[], Tensor] | None
"""The fixed weights of a composite, `(k,)`; a function that returns them; None: all 1."""

Store: TypeAlias = "dict[str, NDArray[Any]]"
"""What is written to a file: arrays by name."""


class State(dict[str, Any]):
    """The variables of a rule, by name.

    Args:
        variables: a dict from name to `keras.Variable`.
        num_components: k; a variable of shape `(k,)` has an entry for each component.
    """

    def __init__(
        self,
        variables: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        num_components: int | None = None,
    ) -> None:
        super().__init__(variables)
        self.num_components = num_components

    def read(self) -> StateTensors:
        """The current values, as tensors by name."""
        return {name: ops.convert_to_tensor(variable) for name, variable in self.items()}

    def move(self, new: StateTensors, old: StateTensors, of: Tensor | None = None) -> None:
        """Assigns new values; where a new value is not finite, the old one stays.

        Args:
            new: a dict from name to new value.
            old: what `read` returned before the step.
            of: None, or booleans `(k,)`: the components whose entries may change.
        """
        for name, value in new.items():
            value = ops.stop_gradient(ops.cast(value, "float32"))
            may_change = ops.isfinite(value)
            if of is not None and tuple(old[name].shape) == (self.num_components,):
                may_change = ops.logical_and(may_change, of)
            self[name].assign(ops.where(may_change, value, old[name]))

    def restart(self, initial: Mapping[str, ArrayLike]) -> None:
        """Assigns a dict of initial arrays."""
        for name, value in initial.items():
            self[name].assign(np.asarray(value, "float32"))

    def save(self, store: Store) -> None:
        """Writes the variables into a dict of arrays."""
        for name, variable in self.items():
            store[name] = ops.convert_to_numpy(variable)

    def load(self, store: Store) -> None:
        """Reads the variables from a dict of arrays.

        A file of an older version may hold fewer variables; those that it lacks stay as they are.
        """
        for name, variable in self.items():
            if name in store:
                variable.assign(np.array(store[name]))


def state_variable(name: str, value: ArrayLike, trainable: bool = False) -> Any:
    """Makes one variable of a rule."""
    return keras.Variable(
        np.asarray(value, "float32"),
        dtype="float32",
        trainable=trainable,
        name=f"weighting_{name}",
        # All replicas compute the same state, because each gets the values of the whole batch.
        aggregation="mean" if trainable else "only_first_replica",
    )


class WithState:
    """A rule that remembers: its variables are made, saved, loaded and set back here."""

    draws: bool = False  # whether the rule draws from `self.generator`, seeded by its `seed`
    seed: int | None = None
    num_components: int | None = None  # until `build`
    generator: Any  # a `keras.random.SeedGenerator`, from `build` on, if the rule draws
    _state: State = State()  # empty until `build`
    _fixed: FixedWeights = None

    def initial_state(self, k: int) -> dict[str, ArrayLike]:
        """What the rule remembers: a dict from name to initial array."""
        return {}

    def _initial(self) -> dict[str, ArrayLike]:
        """The initial state: that of the rule, and what every rule keeps."""
        return self.initial_state(self._k)

    def build(self, num_components: int, weights: FixedWeights = None) -> None:
        """Makes the state of the rule.

        Args:
            num_components: k, the number of components.
            weights: the fixed weights of the composite, `(k,)`, or a function that returns their
                current values; default all 1.
        """
        if self.num_components is not None:
            raise ValueError(
                f"This {type(self).__name__} weighs the components of another composite already; "
                f"give each composite a rule of its own. Received: {self!r}"
            )
        self.num_components = num_components
        self._fixed = weights
        variables = {name: self._variable(name, value) for name, value in self._initial().items()}
        self._state = State(variables, num_components)
        if self.draws:
            self.generator: Any = keras.random.SeedGenerator(self.seed)
            self._first_draw = ops.convert_to_numpy(keras_private.seed_state(self.generator))

    @property
    def _k(self) -> int:
        """The number of components, after `build`."""
        if self.num_components is None:
            raise ValueError(
                f"{self!r} belongs to no composite yet: pass it as `weighting=`, or call "
                "`build(num_components)`. Received: a call before that"
            )
        return self.num_components

    def _variable(self, name: str, value: ArrayLike) -> Any:
        return state_variable(name, value)

    @property
    def variables(self) -> list[Any]:
        """The state, which the composite hands to the model."""
        drawn = [keras_private.seed_state(self.generator)] if self.draws else []
        return [*self._state.values(), *drawn]

    def reset(self) -> None:
        """Starts over: the state is again what `build` made."""
        self._state.restart(self._initial())
        if self.draws:
            keras_private.seed_state(self.generator).assign(self._first_draw)

    def save(self, store: Store) -> None:
        """Writes the state into a dict of arrays."""
        self._state.save(store)
        if self.draws:
            store["draw"] = ops.convert_to_numpy(keras_private.seed_state(self.generator))

    def load(self, store: Store) -> None:
        """Reads the state from a dict of arrays."""
        self._state.load(store)
        if self.draws:
            keras_private.seed_state(self.generator).assign(np.array(store["draw"]))

    def fixed_weights(self) -> Tensor:
        """The fixed weights of the composite, `(k,)`."""
        fixed = self._fixed() if callable(self._fixed) else self._fixed
        if fixed is None:
            return ops.ones((self._k,))
        return ops.cast(ops.convert_to_tensor(fixed), "float32")
