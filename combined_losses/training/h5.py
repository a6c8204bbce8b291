"""What Keras's old format `.h5` keeps of a model that is compiled with a composite."""

import warnings
from typing import Any

from combined_losses._core.compound import Compound
from combined_losses._core.config import serialize_losses
from combined_losses._core.names import listed
from combined_losses.training.model_state import ModelState
from combined_losses.training.routing import as_compiled, by_output
from combined_losses.training.tracker import Tracking


class CompileConfig:
    """Replaces what Keras saves of `compile`, see `keras_private.replace_compile_config`.

    The file is loaded as a plain Keras model, compiled with the composite and the fixed weights
    that it has when it is saved. Such a file keeps the weights of layers alone: the state of the
    losses is lost.

    Args:
        plain: the object that is replaced.
        state: the `ModelState` of the model.
    """

    def __init__(self, plain: Any, state: ModelState) -> None:
        self._plain = plain
        self._state = state

    def serialize(self) -> dict[str, Any]:
        """For the format `.keras`, to which the mixin adds the losses itself."""
        config: dict[str, Any] = self._plain.serialize()
        return config

    @property
    def config(self) -> dict[str, Any]:
        """The arguments of `compile`; read when a file `.h5` is written."""
        for compound in self._state.compounds:
            _warn_of_loss(compound)
        losses: Any = self._state.loss
        weights: Any = self._state.loss_weights
        tracking = self._state.tracking
        if tracking is not None and all(r.output is not None for r in tracking.routes):
            losses, weights = _for_each(tracking, losses)
        return {**self._plain.config, "loss": serialize_losses(losses), "loss_weights": weights}


def _for_each(tracking: Tracking, losses: Any) -> tuple[Any, Any]:
    """The losses and `loss_weights` of the outputs, one entry for each, in Keras's order.

    A plain Keras model takes no partial dicts of weights, and the old format no dicts of losses.
    """
    by_name = by_output("loss", losses, tracking.places)
    weights = {route.output: route.weight for route in tracking.routes}
    names = sorted(tracking.places, key=lambda name: tracking.places[name].index)
    found = [as_compiled(by_name[n], n) if n in weights else None for n in names]
    numbers = [weights.get(name, 1.0) for name in names]
    return (found[0], numbers[0]) if names == [""] else (found, numbers)


def _warn_of_loss(compound: Compound) -> None:
    lost = []
    if compound.moves:
        lost.append("the state of its moving weights")
    elif compound.learned_variables:
        lost.append("what it has learned")
    if compound.chooses_outputs:
        lost.append("its choice among the outputs (a plain Keras model cannot choose)")
    if lost:
        warnings.warn(
            f"A file '.h5' does not keep all of '{compound.name}': it loses {listed(lost)}. Save "
            "the model as '.keras'.",
            stacklevel=2,
        )
