"""What Keras's old format `.h5` keeps of a model that is compiled with a composite."""

import warnings
from typing import TYPE_CHECKING, Any

from combined_losses._core.compound import Compound
from combined_losses._core.config import serialize_losses
from combined_losses._core.names import listed
from combined_losses.training.routing import as_compiled, by_output
from combined_losses.training.tracker import Tracking

if TYPE_CHECKING:
    from combined_losses.training.model_state import ModelState


class CompileConfig:
    """In the place of what Keras saves of `compile`, see `keras_private.replace_compile_config`.

    The file comes back as a plain Keras model, compiled with the composite and its fixed weights as
    they are when it is saved. Only layers have their weights in it, so that state is lost.

    Args:
        plain: what Keras has put there.
        state: what the model keeps of its losses.
    """

    def __init__(self, plain: Any, state: "ModelState") -> None:
        self._plain = plain
        self._state = state

    def serialize(self) -> Any:
        """For the format `.keras`, to which the mixin adds the losses itself."""
        return self._plain.serialize()

    @property
    def config(self) -> dict[str, Any]:
        """The arguments of `compile`; read when a file `.h5` is written."""
        for compound in self._state.compounds:
            _warn(compound)
        losses, weights = self._state.loss, self._state.loss_weights
        tracking = self._state.tracking
        if tracking is not None and all(r.output is not None for r in tracking.routes):
            losses, weights = _for_each(tracking, losses)
        return {**self._plain.config, "loss": serialize_losses(losses), "loss_weights": weights}


def _for_each(tracking: Tracking, losses: Any) -> tuple[Any, Any]:
    """The losses and `loss_weights` of the outputs, one entry for each, in Keras's order.

    A plain Keras model takes no partial dicts of weights, and its old format no names of losses.
    """
    given = by_output("loss", losses, tracking.places)
    weights = {route.output: route.weight for route in tracking.routes}
    names = sorted(tracking.places, key=lambda name: tracking.places[name].index)
    found = [as_compiled(given[n], n) if n in weights else None for n in names]
    numbers = [weights.get(name, 1.0) for name in names]
    return (found[0], numbers[0]) if names == [""] else (found, numbers)


def _warn(compound: Compound) -> None:
    lost: list[str] = []
    if compound.moves:
        lost.append("the state of its weights, which move,")
    if compound.routes:
        lost.append("the way to several outputs, which a plain Keras model does not have,")
    if lost:
        warnings.warn(
            f"A file '.h5' does not keep {listed(lost)} of '{compound.name}': save the model "
            "as '.keras'.",
            stacklevel=2,
        )
