"""What Keras's old format `.h5` keeps of a model that is compiled with a composite."""

import warnings

from combined_losses._internal.config import serialize_losses


class CompileConfig:
    """In the place of `model._compile_config`, which that saver reads (Keras 3.15.1).

    The file comes back as a plain Keras model, compiled with the composite and its fixed weights as
    they are when it is saved. Only layers have their weights in it, so that state is lost.

    Args:
        plain: what Keras has put there.
        state: what the model keeps of its losses.
    """

    def __init__(self, plain, state):
        self._plain = plain
        self._state = state

    def serialize(self):
        """For the format `.keras`, to which the mixin adds the losses itself."""
        return self._plain.serialize()

    @property
    def config(self):
        """The arguments of `compile`; read when a file `.h5` is written."""
        for compound in self._state.compounds:
            _warn(compound)
        losses = serialize_losses(self._state.loss)
        return {**self._plain.config, "loss": losses, "loss_weights": self._state.loss_weights}


def _warn(compound):
    lost = []
    if compound.moves:
        lost.append("the state of its weights, which move,")
    if compound.routes:
        lost.append("the way to several outputs, which a plain Keras model does not have,")
    if lost:
        warnings.warn(
            f"A file '.h5' does not keep {' and '.join(lost)} of '{compound.name}': save the model "
            "as '.keras'.",
            stacklevel=2,
        )
