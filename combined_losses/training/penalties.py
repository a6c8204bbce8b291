"""The losses that layers add, and the model by itself: as a whole, and of each layer."""

from collections.abc import Iterable, Sequence

import keras
from keras import ops

from combined_losses._numerics.arrays import Tensor


class Penalties:
    """What is recorded of such losses, under `regularization_loss` and a key for each layer.

    Args:
        names: those of the layers, and last that of the model, for the losses that it adds itself.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.keys: list[str] = [f"regularization/{name}_loss" for name in names]
        self.found: bool = False  # whether there are any
        self.shown: list[str] = []  # the keys of those that have some, where several do

    def measure(
        self, model: keras.Model, owners: Sequence[int | None], replicas: int
    ) -> tuple[Tensor | None, list[Tensor | float]]:
        """The sum of the losses (None if there are none), and that of each key.

        Args:
            model: the model.
            owners: what `owners_of` has found, on JAX.
            replicas: how many compute this batch together: Keras adds up their losses.
        """
        nothing: list[Tensor | float] = [0.0] * len(self.keys)
        losses: list[Tensor] = model.losses
        if not losses:
            return None, nothing
        self.found = True
        whole = _summed(losses) / replicas
        of_layers = _of_layers(model, losses, owners)
        by_itself = len(losses) > sum(map(len, of_layers))
        if len(self.keys) != len(of_layers) + 1 or sum(map(bool, of_layers)) + by_itself < 2:
            return whole, nothing
        parts: list[Tensor | float] = [
            _summed(found) / replicas if found else 0.0 for found in of_layers
        ]
        parts.append(whole - sum(parts) if by_itself else 0.0)
        has = [*map(bool, of_layers), by_itself]
        self.shown = [key for key, there in zip(self.keys, has, strict=True) if there]
        return whole, parts


def owners_of(model: keras.Model, losses: Iterable[Tensor]) -> list[int | None]:
    """For each of a model's losses the index of the layer that has added it, or None.

    The regularizers of weights compute a new tensor whenever they are asked: no layer is found.
    """
    of_layers = [layer.losses for layer in getattr(model, "layers", ())]
    return [
        next((i for i, own in enumerate(of_layers) if any(loss is o for o in own)), None)
        for loss in losses
    ]


def _of_layers(
    model: keras.Model, losses: Iterable[Tensor], owners: Iterable[int | None]
) -> list[list[Tensor]]:
    """The losses of each layer."""
    found = [list(layer.losses) for layer in getattr(model, "layers", ())]
    for loss, owner in zip(losses, owners, strict=False):
        if owner is not None:
            found[owner].append(loss)
    return found


def _summed(losses: Iterable[Tensor]) -> Tensor:
    return sum(ops.sum(ops.cast(loss, "float32")) for loss in losses)
