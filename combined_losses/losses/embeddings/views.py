"""Two views of each sample, without labels: embeddings that agree, and do not collapse."""

from typing import Any, Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.alignment import at_every_place, product
from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_number
from combined_losses._core.keras_types import KerasLoss, LossArguments, Reduction
from combined_losses._core.loss import Loss
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Dtype, Tensor
from combined_losses._numerics.floats import accumulating, div
from combined_losses.losses.embeddings.outputs import of_two_outputs
from combined_losses.losses.parts import OfParts

__all__ = ["BarlowTwins", "VICReg"]

# The square of a larger number, summed over samples and features, and squared, may overflow.
_LARGEST = 1e8


class _OfViews(OfParts):
    """A loss of two views, with parts (abstract)."""

    needs_target = False  # it may be given two outputs instead

    def see(self, batch: Batch, label: str) -> Batch:
        batch = of_two_outputs(self, batch, label)
        dtype = accumulating(self.dtype)
        y_true, y_pred = (
            ops.clip(ops.cast(a, dtype), -_LARGEST, _LARGEST) for a in (batch.y_true, batch.y_pred)
        )
        return batch.replaced(y_true=y_true, y_pred=y_pred)


@keras.saving.register_keras_serializable("combined_losses")
class BarlowTwins(_OfViews):
    """Two views that agree in each feature, and features that do not say the same twice.

    With `h = (x - mean) / sqrt(var + epsilon)`, each feature of each view over the batch, and C the
    correlations `sum h_y^T h_p / batch`: `sum_i (1 - C_ii)^2 + off_diagonal sum_{i != j} C_ij^2`.
    Use it to learn from images without labels, two distorted views of each; it needs neither
    negatives nor large batches, but many features.

    The two sums are parts: in a composite as `{"views": BarlowTwins()}` the logs hold `views_loss`,
    `views/agreement_loss` and `views/redundancy_loss`. Name both outputs of the model,
    `OnOutput(BarlowTwins(), ("one", "other"))`; both have gradients, and `fit` needs no `y`.

    Args:
        off_diagonal: the weight of the second sum, of at least 0. Default 0.005; it shall fall as
            one over the number of features.
        epsilon: added to the variances, above 0. Default 1e-5.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: two outputs, or `y_true` and `y_pred`, `(batch, features)`; values `(batch,)`, every one
    the number of the whole batch, on all replicas. Weights of samples act inside, on mean, variance
    and C; a sample of weight 0 is left out.

    Raises:
        ValueError: if an argument is outside its range, if there are not two arrays, or if their
            shapes differ.

    Example: two features that are independent, and the second view is the first one.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> view = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> loss = cl.losses.BarlowTwins(off_diagonal=0.1)
    >>> round(float(loss(view, 3 * view + 5)), 4), round(float(loss(view, view[:, ::-1])), 4)
    (0.0, 2.2)

    Limits: a view that is constant has C = 0, so the value is the number of features, and that view
    has no gradient by which to leave. A single sample is such a view. Numbers beyond 1e8 count as
    1e8, without a gradient. Zbontar et al. 2021, arXiv 2103.03230.
    """

    def __init__(
        self,
        off_diagonal: float = 5e-3,
        *,
        epsilon: float = 1e-5,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: Dtype = None,
    ) -> None:
        check_number("BarlowTwins", "off_diagonal", off_diagonal, minimum=0)
        check_number("BarlowTwins", "epsilon", epsilon, minimum=0, exclusive=True)
        parts: dict[str, KerasLoss] = {
            "agreement": _Agreement(),
            "redundancy": _Redundancy(),
        }
        super().__init__(parts, {"redundancy": off_diagonal}, reduction, name, dtype)
        self.off_diagonal = off_diagonal
        self.epsilon = epsilon

    def see(self, batch: Batch, label: str) -> Batch:
        """The views with features of mean 0 and variance 1, which both parts read."""
        batch = super().see(batch, label)
        like = batch.y_pred[:, 0]
        weights = [at_every_place(ops.cast(w, like.dtype), like) for _, w in batch.weights()]
        if any(weight is None for weight in weights):
            return batch  # the parts raise
        shares = _shares(like, product(weights))

        def standardised(x: Tensor) -> Tensor:
            x = batch.neutralised(x, 0.0)
            deviation = ops.sqrt(_variance(x, shares) + self.epsilon)
            return (x - _mean(x, shares)) / deviation

        return batch.replaced(y_true=standardised(batch.y_true), y_pred=standardised(batch.y_pred))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "off_diagonal": self.loss.weights["redundancy"]}


@keras.saving.register_keras_serializable("combined_losses")
class VICReg(_OfViews):
    """Two views that agree, features that vary, and features that vary apart from each other.

    `invariance mean((y - p)^2) + variance (V(y) + V(p)) + covariance (K(y) + K(p))`, where `V(x) =
    mean_d max(target_std - sqrt(Cov_dd + epsilon), 0) / 2` holds each feature's standard deviation
    up, and `K(x) = sum_{i != j} Cov_ij^2 / features` keeps features from saying the same twice; Cov
    is the covariance over the batch. Use it to learn from images without labels, two distorted
    views of each, also where the two branches differ: each view is kept from collapsing by itself.

    The three terms are parts: in a composite as `{"views": VICReg()}` the logs hold `views_loss`,
    `views/invariance_loss`, `views/variance_loss` and `views/covariance_loss`, and
    `set_weight("views/variance", 10.0)` changes a weight. Name both outputs of the model,
    `OnOutput(VICReg(), ("one", "other"))`; both have gradients, and `fit` needs no `y`.

    Args:
        invariance, variance, covariance: weights of the three terms, of at least 0. Defaults 25.0,
            25.0 and 1.0.
        target_std: the standard deviation that each feature shall have at least, above 0. Default
            1.0.
        epsilon: added to the variances, above 0. Default 1e-4.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: two outputs, or `y_true` and `y_pred`, `(batch, features)`, of at least two samples;
    values `(batch,)`, every one the number of the whole batch, on all replicas. Weights of samples
    act inside, on means and covariances; a sample of weight 0 is left out.

    Raises:
        ValueError: if an argument is outside its range, if there are not two arrays, or if their
            shapes differ.

    Example: views that agree, of two features that are independent; then both are the same feature.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> view = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> loss = cl.losses.VICReg(epsilon=1e-8)
    >>> same = view[:, [0, 0]]
    >>> round(float(loss(view, view)), 4), round(float(loss(same, same)), 4)  # 2 (4 / 3)^2
    (0.0, 3.5556)

    Limits: `variance=0` and `covariance=0` leave an error that embeddings which do not depend on
    the input make 0. Of a view that is exactly constant the variance term has no gradient. A single
    sample has no variance: `variance * target_std`, nearly, plus the first term. Numbers beyond 1e8
    count as 1e8, without a gradient. Bardes et al. 2022, arXiv 2105.04906.
    """

    def __init__(
        self,
        invariance: float = 25.0,
        variance: float = 25.0,
        *,
        covariance: float = 1.0,
        target_std: float = 1.0,
        epsilon: float = 1e-4,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: Dtype = None,
    ) -> None:
        weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
        for part, weight in weights.items():
            check_number("VICReg", part, weight, minimum=0)
        check_number("VICReg", "target_std", target_std, minimum=0, exclusive=True)
        check_number("VICReg", "epsilon", epsilon, minimum=0, exclusive=True)
        parts: dict[str, KerasLoss] = {
            "invariance": _Invariance(),
            "variance": _Variance(target_std, epsilon),
            "covariance": _Covariance(),
        }
        super().__init__(parts, weights, reduction, name, dtype)
        self.invariance = invariance
        self.variance = variance
        self.covariance = covariance
        self.target_std = target_std
        self.epsilon = epsilon

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.loss.weights}


class _OfBatch(Loss):
    """A number of the two views of a whole batch (abstract): a subclass implements `measure`."""

    neutral_target = 1.0

    @property
    def traits(self) -> Traits:
        return super().traits._replace(couples_batch=True, weighs_batch=True, weighs_rows=True)

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        shares = _shares(y_pred[:, 0], sample_weight)
        value = self.measure(y_true, y_pred, shares)
        if sample_weight is not None:  # of no sample at all, features would not vary
            total = backend.global_sum(ops.sum(sample_weight))
            value = ops.where(total > 0, value, 0.0)
        return ops.broadcast_to(value, (ops.shape(y_pred)[0],))

    def measure(self, y: Tensor, p: Tensor, shares: Tensor | None) -> Tensor:
        """The number, `()`; `shares` are those of `_mean`."""
        raise NotImplementedError(f"{type(self).__name__} must implement `measure`.")


class _Agreement(_OfBatch):
    """Of standardised views."""

    def measure(self, y: Tensor, p: Tensor, shares: Tensor | None) -> Tensor:
        return ops.sum(ops.square(1 - _mean(y * p, shares)))


class _Redundancy(_OfBatch):
    """Of standardised views."""

    def measure(self, y: Tensor, p: Tensor, shares: Tensor | None) -> Tensor:
        return _off_diagonal(_products(y, p, shares))


class _Invariance(_OfBatch):
    def measure(self, y: Tensor, p: Tensor, shares: Tensor | None) -> Tensor:
        return ops.mean(_mean(ops.square(y - p), shares))


class _Variance(_OfBatch):
    def __init__(self, target_std: float, epsilon: float, **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        self.target_std = target_std
        self.epsilon = epsilon

    def measure(self, y: Tensor, p: Tensor, shares: Tensor | None) -> Tensor:
        return (self._of_view(y, shares) + self._of_view(p, shares)) / 2

    def _of_view(self, x: Tensor, shares: Tensor | None) -> Tensor:
        variance = div(_variance(x, shares), _unbiased(x, shares))
        return ops.mean(ops.relu(self.target_std - ops.sqrt(variance + self.epsilon)))


class _Covariance(_OfBatch):
    def measure(self, y: Tensor, p: Tensor, shares: Tensor | None) -> Tensor:
        # div(C, u)^2 = C^2 / u^2, of fewer numbers.
        squares = self._of_view(y, shares) + self._of_view(p, shares)
        return div(squares, ops.square(_unbiased(y, shares))) / y.shape[-1]

    @staticmethod
    def _of_view(x: Tensor, shares: Tensor | None) -> Tensor:
        x = _centred(x, shares)
        return _off_diagonal(_products(x, x, shares))


def _shares(like: Tensor, weight: Tensor | None) -> Tensor | None:
    """How much each sample counts, `(batch, 1)`, 1 in sum over all replicas; None: all alike."""
    if weight is None:
        if backend.replica_count() == 1 and like.shape[0] != 0:
            return None
        weight = ops.ones_like(like)
    return ops.expand_dims(div(weight, backend.global_sum(ops.sum(weight))), -1)


def _mean(x: Tensor, shares: Tensor | None) -> Tensor:
    """The mean over all samples, `(features,)`."""
    if shares is None:
        return ops.mean(x, axis=0)
    return backend.global_sum(ops.sum(shares * x, axis=0))


def _centred(x: Tensor, shares: Tensor | None) -> Tensor:
    return x - _mean(x, shares)


def _variance(x: Tensor, shares: Tensor | None) -> Tensor:
    if shares is None:
        return ops.var(x, axis=0)
    return _mean(ops.square(_centred(x, shares)), shares)


def _unbiased(x: Tensor, shares: Tensor | None) -> Tensor:
    """`1 - sum a_i^2`, by which a weighted variance is divided; `(n - 1) / n` of equal weights."""
    if shares is None:
        return 1 - 1 / ops.cast(ops.maximum(ops.shape(x)[0], 1), x.dtype)
    return 1 - backend.global_sum(ops.sum(ops.square(shares)))


def _products(x: Tensor, z: Tensor, shares: Tensor | None) -> Tensor:
    """The mean of `x_i^T z_i`, `(features, features)`."""
    if shares is not None:
        z = shares * z
    found = backend.products(ops.transpose(x), ops.transpose(z))
    if shares is None:
        return found / ops.cast(ops.maximum(ops.shape(x)[0], 1), x.dtype)
    return backend.global_sum(found)


def _off_diagonal(matrix: Tensor) -> Tensor:
    """The sum of the squares beside the diagonal."""
    # Without its last entry the matrix is n - 1 rows that begin on the diagonal and have n entries
    # beside it, those up to the next one on it. So no array as large is made and masked.
    n = matrix.shape[-1]
    beside = ops.reshape(ops.reshape(matrix, (n * n,))[:-1], (n - 1, n + 1))[:, 1:]
    return ops.sum(ops.square(beside))
