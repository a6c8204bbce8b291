"""`on_nonfinite="skip"`: a component that is not finite in a step is left out of that step."""

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
    """Raises unless `mode`, the `on_nonfinite` of composite `owner`, is one of the two."""
    if not isinstance(mode, str) or mode not in MODES:
        raise ValueError(
            f"`on_nonfinite` of '{owner}' must be 'propagate' or 'skip'. "
            f"Received: {checks.shown(mode)}"
        )


def is_active(batch: Batch) -> bool:
    """Whether components are skipped; `components` and `cl.diagnose` show them as they are."""
    return observed() is None and not batch.skips_nothing


def cut_gradient(batch: Batch) -> Batch:
    """The batch, with predictions whose gradient is replaced by 0 if it is not finite.

    The gradient that enters a skipped component is 0. In the backward pass through values that are
    not finite it can become NaN, so it has to be stopped at the predictions.
    """

    def cut(leaf: Tensor) -> Tensor:
        if not checks.is_float(leaf):
            return leaf
        # Here gradients are of float32 or more. They become float16 after the cut, so it does not
        # hide an overflow, by which a `LossScaleOptimizer` knows that its scale is too large.
        return backend.finite_gradient(float32(leaf))

    return batch.map_predictions(cut)


def skipped(
    evaluations: list[Evaluation], batch: Batch, dtype: str
) -> tuple[list[Evaluation], Tensor | None, Tensor]:
    """The evaluations, with zeros in place of components that are not finite.

    Returns:
        Three things. The evaluations. Which components are finite in all replicas, booleans
        `(k,)`; None where components are not skipped. This replica's contribution to
        `<name>_skipped`, `(k,)`.
    """
    totals = ops.stack([ops.cast(each.total, dtype) for each in evaluations])
    are_finite = ops.isfinite(totals)
    if len(totals.shape) > 1:  # one value for each sample: skipped if any of them is not finite
        are_finite = ops.all(are_finite, axis=1)
    if batch.replicas > 1:
        finite_replicas = backend.global_sum(ops.cast(are_finite, "float32"))
        are_finite = ops.equal(finite_replicas, float(batch.replicas))
    shares = ops.cast(ops.logical_not(are_finite), dtype) / batch.replicas
    if not is_active(batch):
        return evaluations, None, shares
    evaluations = [_zeros_unless(are_finite[i], each) for i, each in enumerate(evaluations)]
    return evaluations, are_finite, shares


def _zeros_unless(is_finite: Tensor, evaluation: Evaluation) -> Evaluation:
    """An `Evaluation`, or zeros in its place.

    Its parts become 0, too: the value of a component is the sum of its parts.
    """

    def zero_unless(value: Tensor | None) -> Tensor | None:
        return None if value is None else ops.where(is_finite, value, 0.0)

    present = evaluation.present
    return evaluation._replace(
        present=is_finite if present is None else ops.logical_and(present, is_finite),
        total=zero_unless(evaluation.total),
        values=tuple(map(zero_unless, evaluation.values)),
        extras=tuple(map(zero_unless, evaluation.extras)),
    )


# What acts on the model past the predictions, where its gradient cannot be stopped.


def check_parts(composite: "WeightedSum", nodes: Mapping[str, Node]) -> None:
    """Raises if one of the components, `nodes` by name, acts on the model past its output."""
    for name, node in nodes.items():
        if node.acts_beyond_output():
            raise ValueError(
                f"Component '{name}' of '{composite.name}' acts on the model by more than its "
                "output, and on_nonfinite='skip' cuts gradients off at the output alone: put this "
                "component and this composite into another one with on_nonfinite='propagate', and "
                "write the component so that its values are finite. "
                "Received: on_nonfinite='skip'"
            )


def check_readers(composite: "WeightedSum", nodes: Mapping[str, Node], model: Any) -> None:
    """Raises if a function in one of the components, `nodes` by name, holds what `model` trains."""
    trained = {id(v) for v in model.trainable_variables}
    own = {id(model), *map(id, getattr(model, "layers", ()))}
    for name, node in nodes.items():
        held = [thing for read in node.find_readers() if callable(read) for thing in owned_by(read)]
        if any(id(thing) in own for thing in held) or trained & set(map(id, variables_of(held))):
            raise ValueError(
                f"Component '{name}' of '{composite.name}' reads the trained model by itself, not "
                "only the predictions, and on_nonfinite='skip' cuts gradients off at the "
                "predictions alone: let it compute with y_pred, or take on_nonfinite='propagate'. "
                f"Received: on_nonfinite={composite.on_nonfinite!r}"
            )
