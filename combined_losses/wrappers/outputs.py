"""Which outputs and targets of a model a component reads."""

from collections.abc import Sequence
from typing import Any, Unpack

import keras

from combined_losses._core.batch import Batch
from combined_losses._core.keras_types import CompositeArguments, LossLike
from combined_losses._core.masks import read_mask
from combined_losses._core.names import quoted
from combined_losses._core.outputs import NOTHING, Place, entry_of, shared_names
from combined_losses._numerics.arrays import Tensor
from combined_losses.wrappers.base import Wrapper
from combined_losses.wrappers.output_weights import mean_weight, places_in, weight_of_rows

__all__ = ["OnOutput"]


@keras.saving.register_keras_serializable("combined_losses")
class OnOutput(Wrapper):
    """A loss on chosen outputs of a model of several.

    A composite that holds such a component is called once with all outputs, not once for each as
    Keras does. So every component in it has to say which output it reads. It trains in `cl.Model`,
    `cl.Sequential` and `cl.track`.

    Args:
        loss: as in `cl.wrappers.Wrapper`.
        output: the name of an output (a key of a dict of outputs, or the name of the layer), or a
            tuple of names: the loss is then given a tuple of predictions.
        target: a key of `y`, or a tuple of keys: the loss is then given a tuple of targets.
            Default: the key of the output, or the whole of `y` if it has no such key. Sample
            weights in a dict are chosen by the same keys; several outputs or targets get the mean
            of theirs.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    The mask is that of the output; for a tuple, a place counts if the masks of all outputs agree.

    Raises:
        ValueError: if the model has no such output, `y` no such key, or in a plain `keras.Model`.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(
    ...     {
    ...         "mask": cl.wrappers.OnOutput("binary_crossentropy", "mask"),
    ...         "price": cl.wrappers.OnOutput("mse", "price"),
    ...     }
    ... )
    """

    chooses_outputs = True

    def __init__(
        self,
        loss: LossLike,
        output: str | Sequence[str],
        target: str | Sequence[str] | None = None,
        **kwargs: Unpack[CompositeArguments],
    ) -> None:
        super().__init__(loss, **kwargs)
        names = output if isinstance(output, (tuple, list)) else [output]
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"The argument `output` of OnOutput ('{self.name}') must be the name of an output, "
                f"or a tuple of names. Received: {output!r}"
            )
        several = list(target) if isinstance(target, (tuple, list)) else [target]
        if target is not None and not (several and all(isinstance(key, str) for key in several)):
            raise ValueError(
                f"The argument `target` of OnOutput ('{self.name}') must be a key of `y`, a tuple "
                f"of keys or None. Received: {target!r}"
            )
        if self._node.chooses_outputs:
            raise ValueError(
                f"The loss of OnOutput ('{self.name}') reads outputs by itself; choose one in one "
                f"place. Received: {loss!r}"
            )
        self.output = output
        self.target = target

    def arranged(self, batch: Batch) -> Batch:
        return batch

    def see(self, batch: Batch, label: str) -> Batch:
        return batch  # that of the chosen output

    def choose_output(self, batch: Batch, label: str) -> Batch:
        if batch.output_is_chosen:
            return batch
        outputs = batch.y_pred
        if not isinstance(outputs, dict):
            nested = keras.tree.is_nested(outputs)
            received = f"{len(outputs)} arrays" if nested else f"shape {tuple(outputs.shape)}"
            raise ValueError(
                f"Component '{label}' chooses an output of the model, and Keras gives a loss one "
                "output at a time. Compile it in cl.Model, cl.Sequential or cl.track(model), or "
                f"call it with a dict of outputs. Received: y_pred of {received}"
            )
        single = isinstance(self.output, str)
        names = [self.output] if isinstance(self.output, str) else self.output
        _check_outputs(names, outputs, batch.places, label)
        y_pred = outputs[self.output] if single else tuple(outputs[name] for name in names)
        return batch.replaced(
            y_true=self._target(batch, label),
            y_pred=y_pred,
            sample_weight=self._weight(batch, label),
            mask=read_mask(y_pred),
            output_is_chosen=True,
        )

    @property
    def _key(self) -> str | Sequence[str]:
        """The key or keys of its target and sample weights."""
        return self.output if self.target is None else self.target

    def _target(self, batch: Batch, label: str) -> Any:
        y, key, places = batch.y_true, self._key, places_in(batch)
        if isinstance(key, str) or self.target is not None:
            keys = [key] if isinstance(key, str) else key
            found = [entry_of(y, each, places) for each in keys]
            missing = [each for each, entry in zip(keys, found, strict=True) if entry is NOTHING]
            if not missing:
                return found[0] if isinstance(key, str) else tuple(found)
            if self.target is not None and y is not None and self.needs_target:
                held = y if isinstance(y, dict) else places
                raise ValueError(
                    f"Component '{label}' has the target {missing[0]!r}, and `y` the keys "
                    f"{quoted(held)}. Received: target={self.target!r}"
                )
        # With one output and one target, the target may have any name.
        only = isinstance(y, dict) and len(y) == len(places) == 1
        return next(iter(y.values())) if only else y

    def _weight(self, batch: Batch, label: str) -> Tensor:
        """The sample weights of its target; for several outputs or targets, the mean of theirs."""
        weight, places = batch.sample_weight, places_in(batch)
        if not keras.tree.is_nested(weight):
            return weight
        read = self.target or self.output
        read = [read] if isinstance(read, str) else read
        found = [entry_of(weight, key, places, below=True) for key in read]
        found = [entry for entry in found if entry is not NOTHING]
        # Keras repeats a single array of weights for each entry of `y`, whatever its keys are.
        named = any(entry_of(batch.y_true, key, places) is not NOTHING for key in read)
        if found or named:
            return mean_weight(found, label)
        output = self.output if isinstance(self.output, str) else self.output[0]
        return weight_of_rows(weight, batch.y_pred[output])


def _check_outputs(
    names: Sequence[str], outputs: dict[str, Tensor], places: dict[str, Place] | None, label: str
) -> None:
    """Raises unless each is the name of one output."""
    shared = shared_names(places)
    for name in names:
        if name in shared:
            raise ValueError(
                f"Component '{label}' reads the output {name!r}, and several have that name: "
                f"{quoted(shared[name])}. Let the model return a "
                f"dict, so that each has a key of its own. Received: output={name!r}"
            )
    unknown = [name for name in names if name not in outputs]
    if unknown:
        raise ValueError(
            f"Component '{label}' reads an output that the model has not; it has "
            f"{quoted(outputs)}. Received: {unknown[0]!r}"
        )
