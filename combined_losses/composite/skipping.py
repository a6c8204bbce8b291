"""`on_nonfinite="skip"`: components that are not finite in a step are left out of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras import ops

from combined_losses._backend import backend
from combined_losses._backend.capture import float32
from combined_losses._core import checks
from combined_losses._core.batch import Batch
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.node import Node
from combined_losses._core.observing import observed
from combined_losses._core.owned import owned_by, variables_of
from combined_losses._numerics.arrays import Tensor

if TYPE_CHECKING:
    from combined_losses.composite.total import WeightedSum

MODES = ("propagate", "skip")


def check_mode(mode: object, owner: str) -> None:
    if not isinstance(mode, str) or mode not in MODES:
        raise ValueError(
            f"`on_nonfinite` of '{owner}' must be 'propagate' or 'skip'. "
            f"Received: {checks.shown(mode)}"
        )


def is_active(batch: Batch) -> bool:
    """Whether components are skipped: `components` and `cl.diagnose` give them as they are."""
    return observed() is None and not batch.skips_nothing


def cut_gradient(batch: Batch) -> Batch:
    """The batch, with predictions whose gradient is 0 where it would not be finite.

    A component that is skipped hands back a gradient of 0. On its way through what is not finite
    that becomes NaN, or stays 0: it has to be stopped at the predictions.
    """

    def cut(leaf: Tensor) -> Tensor:
        if not checks.is_float(leaf):
            return leaf
        # In float32 or more: an overflow of float16, by which a `LossScaleOptimizer` knows that its
        # scale is too large, comes after the cut and is not hidden.
        return backend.sound_gradient(float32(leaf))

    return batch.map_predictions(cut)


def skipped(
    evaluations: list[Evaluation], batch: Batch, dtype: str
) -> tuple[list[Evaluation], Tensor | None, Tensor]:
    """The evaluations, with zeros in place of components that are not finite.

    Returns:
        Three things: the evaluations; which components are finite, booleans `(k,)` that are the
        same in all replicas, or None where none is skipped; and this replica's contribution to
        what is logged of it, `(k,)`.
    """
    totals = ops.stack([ops.cast(each.total, dtype) for each in evaluations])
    sound = ops.isfinite(totals)
    if len(totals.shape) > 1:  # of single samples: of all or none
        sound = ops.all(sound, axis=1)
    if batch.replicas > 1:
        whole = backend.global_sum(ops.cast(sound, "float32"))
        sound = ops.equal(whole, float(batch.replicas))
    shares = ops.cast(ops.logical_not(sound), dtype) / batch.replicas
    if not is_active(batch):
        return evaluations, None, shares
    return [_cut(each, sound[i]) for i, each in enumerate(evaluations)], sound, shares


def _cut(evaluation: Evaluation, sound: Tensor) -> Evaluation:
    """An `Evaluation`, or one of zeros: the value of a part is the sum of its parts."""

    def cut(value: Tensor | None) -> Tensor | None:
        return None if value is None else ops.where(sound, value, 0.0)

    present = evaluation.present
    return evaluation._replace(
        present=sound if present is None else ops.logical_and(present, sound),
        total=cut(evaluation.total),
        values=tuple(map(cut, evaluation.values)),
        extras=tuple(map(cut, evaluation.extras)),
    )


# What cannot be cut off at the predictions.


def check_parts(composite: "WeightedSum", nodes: Mapping[str, Node]) -> None:
    """Raises where a component, of nodes by name, acts on the model by more than its output."""
    for name, node in nodes.items():
        if node.acts_beyond_output():
            raise ValueError(
                f"Component '{name}' of '{composite.name}' acts on the model by more than its "
                "output, where on_nonfinite='skip' cuts its gradient off: put it beside this "
                "composite, in one with on_nonfinite='propagate', and keep its values finite by "
                f"itself. Received: on_nonfinite={composite.on_nonfinite!r}"
            )


def check_readers(composite: "WeightedSum", nodes: Mapping[str, Node], model: Any) -> None:
    """Raises where a function of a component, of nodes by name, holds what the model trains."""
    trained = {id(v) for v in model.trainable_variables}
    own = {id(model), *map(id, getattr(model, "layers", ()))}
    for name, node in nodes.items():
        held = [thing for read in node.find_readers() if callable(read) for thing in owned_by(read)]
        if any(id(thing) in own for thing in held) or trained & set(map(id, variables_of(held))):
            raise ValueError(
                f"Component '{name}' of '{composite.name}' reads the trained model by itself, "
                "beside the predictions, where on_nonfinite='skip' cuts its gradient off: let it "
                "compute with y_pred alone, or take on_nonfinite='propagate'. "
                f"Received: on_nonfinite={composite.on_nonfinite!r}"
            )
