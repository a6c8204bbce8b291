"""Rules that choose a direction from the cosines: equal angles, bargaining, aligned axes."""

import functools
from collections.abc import Sequence
from typing import Literal, Unpack

import keras
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.linalg import fair_shares, solve, times
from combined_losses.weightings.active import active_mean
from combined_losses.weightings.gramian import GradientArguments, GramianWeighting
from combined_losses.weightings.products import Gradients, plain_cosines
from combined_losses.weightings.projections import PreferredWeighting
from combined_losses.weightings.solving import solved
from combined_losses.weightings.state import RuleOutput, StateTensors

__all__ = ["IMTLG", "AlignedMTL", "ConFIG", "FairGrad", "NashMTL"]

_EPS = 2.0**-23  # of float32


@keras.saving.register_keras_serializable("combined_losses")
class IMTLG(GramianWeighting):
    """The step that has the same angle to every gradient; its weights sum to 1.

    `w = v / sum(v)`, `v = D^-1 C^-1 1`, C the cosines of the gradients and D their lengths. If the
    sum is not above 0, v is divided by the sum of its magnitudes, which keeps the direction.
    Weights may be negative. It promises `g_i . d >= 0` for every component if no gradient is a
    combination of the others, at the model's output by default, with `gradients="parameters"` at
    the parameters. When to use it: components of different units that should improve alike; the
    units do not change the direction.

    Args:
        gradients, shared_layers, log_conflict: as in `cl.weightings.GramianWeighting`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.GramianWeighting`.

    References:
        - Liu et al., 2021, Towards Impartial Multi-task Learning, ICLR (the paper's IMTL-G).

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.IMTLG())
    """

    sums_to_one = True

    def combine(self, gradients: Gradients, state: StateTensors) -> RuleOutput:
        active, norms = gradients.active, gradients.norms
        # The mean length, which the quotient below cancels, keeps v within float32.
        v = active * solve(gradients.cosines, active) * (active_mean(norms, active) / norms)
        size = ops.sum(v)
        size = ops.where(size > 0, size, ops.sum(ops.abs(v)))
        return v / ops.maximum(size, 1e-30)


@keras.saving.register_keras_serializable("combined_losses")
class ConFIG(PreferredWeighting):
    """The step with the same angle to every gradient; its length is the sum of its projections.

    `w = D^-1 z * sum(n) / sum(z)`, `z = C^-1 1`, C the cosines of the gradients and D their lengths
    n. With a preference p, `z = C^-1 p` and `w = D^-1 z * sum(n p) / sum(z p)`: the cosines between
    the step and the gradients are then proportional to p. Weights may be negative. It promises
    `g_i . d >= 0` for every component if no gradient is a combination of the others, at the model's
    output by default, with `gradients="parameters"` at the parameters. When to use it:
    physics-informed networks; the units of the components do not change the direction. For two
    components it is `InverseGradientNorm`.

    Args:
        preference: None (default), all alike, or a list of k numbers above 0; their sum does not
            matter.
        gradients, shared_layers, log_conflict: as in `cl.weightings.GramianWeighting`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.GramianWeighting`.

    References:
        - Liu et al., 2024, ConFIG: Towards Conflict-free Training of Physics Informed Neural
          Networks, arXiv:2408.11104.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.ConFIG())
    """

    def combine(self, gradients: Gradients, state: StateTensors) -> RuleOutput:
        norms, active = gradients.norms, gradients.active
        p = self.shares(gradients)
        z = active * solve(gradients.cosines, p)
        # d = s J' D^-1 z has g_i . d = s n_i p_i and |d|^2 = s^2 z' C z = s^2 (z . p), so that its
        # projections sum to |d| at s = sum(n p) / (z . p).
        weights = ops.sum(norms * p) / norms * z
        return weights / ops.maximum(ops.sum(z * p), 1e-30)


@keras.saving.register_keras_serializable("combined_losses")
class NashMTL(GramianWeighting):
    """The bargain of the components over the step: `G a = 1 / a`, `a > 0`, cut to a length.

    `w = a * min(1, max_norm / |J' a|)`; `|J' a|` is always `sqrt(k)`. It promises `g_i . d > 0`
    for every component, at the model's output by default, with `gradients="parameters"` at the
    parameters. When to use it: components of different units. Neither the units nor the scale of
    the losses change the step. Because its length is constant, the learning rate has to fall
    towards the end of training.

    Args:
        max_norm: the largest length of the step, above 0, default 1.
        gradients, shared_layers, log_conflict: as in `cl.weightings.GramianWeighting`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.GramianWeighting`.

    References:
        - Navon et al., 2022, Multi-Task Learning as a Bargaining Game, arXiv:2202.01017.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.NashMTL(max_norm=0.5))
    """

    def __init__(self, max_norm: float = 1.0, **kwargs: Unpack[GradientArguments]) -> None:
        super().__init__(**kwargs)
        check_number("NashMTL", "max_norm", max_norm, 0, exclusive=True)
        self.max_norm = max_norm

    def combine(self, gradients: Gradients, state: StateTensors) -> RuleOutput:
        cut = ops.minimum(float(self.max_norm) / ops.sqrt(gradients.count), 1.0)
        return cut * _fair(gradients, 1.0)


@keras.saving.register_keras_serializable("combined_losses")
class FairGrad(GramianWeighting):
    """A fair share of the step for every component: `G w = w^(-1 / alpha)`, `w > 0`.

    It promises `g_i . d > 0` for every component, at the model's output by default, with
    `gradients="parameters"` at the parameters. `alpha = 1` is `NashMTL` without a largest length;
    the larger alpha is, the more the component with the least gain counts. When to use it: to
    choose between the sum (alpha near 0) and the worst component. Only for `alpha = 1` do the units
    of the components not change the step. If the lengths of the gradients differ much, an alpha far
    from 1 leaves some components almost no gain (a cosine of 10^-6 for `alpha = 8` and lengths that
    differ by 10^6); the promise then holds up to the rounding of float32.

    Args:
        alpha: in `[0.1, 100]`, default 1.
        gradients, shared_layers, log_conflict: as in `cl.weightings.GramianWeighting`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.GramianWeighting`.

    References:
        - Ban and Ji, 2024, Fair Resource Allocation in Multi-Task Learning, arXiv:2402.15638.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.FairGrad(alpha=2.0))
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Unpack[GradientArguments]) -> None:
        super().__init__(**kwargs)
        why = "beyond, the powers in its equation do not fit into float32"
        check_number("FairGrad", "alpha", alpha, 0.1, maximum=100, why=why)
        self.alpha = alpha

    def combine(self, gradients: Gradients, state: StateTensors) -> RuleOutput:
        return _fair(gradients, self.alpha)


def _fair(gradients: Gradients, alpha: float) -> Tensor:
    """The solution `w > 0` of `G w = w^(-1 / alpha)`."""
    active = gradients.active
    # With x = n w: n_i (C x)_i = (x_i / n_i)^(-1 / alpha), x_i (C x)_i^alpha = n_i^(1 - alpha).
    # A factor f of the right side changes x by f^(1 / (1 + alpha)): so the right side is solved
    # with the geometric mean 1, and the factor comes back in `weights`.
    logs = ops.log(gradients.norms)
    mean = active_mean(logs, active)
    targets = ops.where(active > 0, (1 - alpha) * (logs - mean), 0.0)
    steps = 20 if 0.5 <= alpha <= 2 else 30
    shares = functools.partial(fair_shares, alpha=alpha, steps=steps)
    logs_of_x = solved(shares, gradients.cosines, targets)
    # The clip below acts only on lengths outside 1e-18 to 1e18.
    weights = logs_of_x + (1 - alpha) / (1 + alpha) * mean - logs
    return ops.exp(ops.clip(weights, -87.0, 88.0))


@keras.saving.register_keras_serializable("combined_losses")
class AlignedMTL(PreferredWeighting):
    """Replaces the gradients by the nearest ones that are orthogonal and equally long; their mean.

    `w = sqrt(sigma) V L^(-1/2) V' p`, `G = V L V'`, over the eigenvalues above `k * eps * max(L)`,
    eps that of float32; sigma is computed from these eigenvalues. Weights may be negative. It does
    not promise that no component is made worse, wherever the gradients are taken: at the model's
    output by default, with `gradients="parameters"` at the parameters. When to use it: gradients
    whose lengths differ by at most three orders of magnitude. If they differ more, eigenvalues fall
    below the bound one after the other, and the step jumps each time. A common factor of the losses
    is a factor of the step.

    Args:
        scale: which of the eigenvalues above the bound sigma is: the `"min"` (default), the lower
            `"median"`, or the `"mean"` of them.
        preference: p: None (default), all alike, or a list of k numbers above 0; their sum does not
            matter.
        gradients, shared_layers, log_conflict: as in `cl.weightings.GramianWeighting`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.GramianWeighting`.

    References:
        - Senushkin et al., 2023, Independent Component Alignment for Multi-Task Learning, CVPR,
          arXiv:2305.19000.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.AlignedMTL())
    """

    sums_to_one = True

    def __init__(
        self,
        scale: Literal["min", "median", "mean"] = "min",
        preference: Sequence[float] | None = None,
        **kwargs: Unpack[GradientArguments],
    ) -> None:
        super().__init__(preference=preference, **kwargs)
        if scale not in ("min", "median", "mean"):
            raise ValueError(
                f"`scale` of AlignedMTL must be 'min', 'median' or 'mean'. Received: {scale!r}"
            )
        self.scale = scale

    def combine(self, gradients: Gradients, state: StateTensors) -> RuleOutput:
        norms = gradients.active * gradients.norms
        norms = norms / ops.maximum(ops.max(norms), 1e-30)
        # Without the ridge, which would lift eigenvalues of 0 above the bound.
        gramian = plain_cosines(gradients) * norms[:, None] * norms[None, :]
        values, vectors = ops.eigh(gramian)
        is_above = values > gradients.count * _EPS * ops.max(values)
        inverse = ops.where(is_above, ops.rsqrt(ops.where(is_above, values, 1.0)), 0.0)
        along = times(ops.transpose(vectors), self.shares(gradients))
        weights = times(vectors, inverse * along)
        return ops.sqrt(self._sigma(values, is_above)) * weights

    def _sigma(self, values: Tensor, is_above: Tensor) -> Tensor:
        """sigma, from the ascending eigenvalues; `is_above`: which are above the bound."""
        number = ops.maximum(ops.sum(ops.cast(is_above, "int32")), 1)
        if self.scale == "mean":
            return ops.sum(ops.where(is_above, values, 0.0)) / ops.cast(number, "float32")
        first = self._k - number  # those above the bound are the last ones
        return ops.take(values, first + ((number - 1) // 2 if self.scale == "median" else 0))
