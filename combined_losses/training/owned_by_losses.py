"""The networks, variables and seeds that losses read beside their arguments: a teacher, a critic.

They are state of the model, which its steps are given on JAX, but nothing that it trains.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from combined_losses._core.compound import Compound
from combined_losses._core.names import quoted
from combined_losses._core.owned import owned_by, variables_of


class OwnedByLosses:
    """What the losses of a model read beside their arguments.

    Args:
        compounds: the losses of the model that are made of losses.
    """

    def __init__(self, compounds: Sequence[Compound]) -> None:
        self._compounds = compounds
        self.things: list[Any] = []  # layers, models, variables and seed generators
        self._saved_models: list[keras.Model] = []  # of these, those of `OnInputs(models=...)`
        self._warned = False

    def find(self, model: keras.Model) -> None:
        """Looks for them; called again before `fit`, since a global may be made after `compile`."""
        readers = [r for compound in self._compounds for r in compound.find_readers()]
        things = [thing for reader in readers if callable(reader) for thing in owned_by(reader)]
        self.things = [thing for thing in things if thing is not model]
        self._saved_models = [reader for reader in readers if isinstance(reader, keras.Model)]

    def variables_besides(self, own: Iterable[keras.Variable]) -> list[keras.Variable]:
        """Their variables, without those that the model has itself."""
        if not self.things:
            return []
        known = {id(v) for v in own}
        return [v for v in variables_of(self.things) if id(v) not in known]

    def check_built(self) -> None:
        """Raises if such a network would make its variables inside a step on JAX."""
        if keras.backend.backend() != "jax":
            return
        for thing in self.things:
            if isinstance(thing, keras.layers.Layer) and not thing.built:
                raise ValueError(
                    f"The loss reads '{thing.name}', which has no variables yet, and a compiled "
                    "step on JAX cannot make them: call it once on data, or give it a keras.Input, "
                    f"before `fit`. Received: {thing!r}, not built"
                )

    def warn_of_parts(self, model: keras.Model) -> None:
        """Warns, once, before a model is saved, of saved networks that share weights with it."""
        if self._warned:
            return
        own = {id(v) for v in model.weights}
        shared = [m.name for m in self._saved_models if own & {id(v) for v in variables_of([m])}]
        if shared:
            self._warned = True
            warnings.warn(
                f"The loss is given {quoted(shared)} by `models=`, which is, or has, a part of the "
                "trained model. The file keeps a copy of it: after loading, the copy has the same "
                "weights and is a network of its own.",
                stacklevel=4,
            )
