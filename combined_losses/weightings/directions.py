"""Rules that choose a direction from the cosines: equal angles, bargaining, aligned axes."""

import keras
from keras import ops

from combined_losses._core.checks import check_number
from combined_losses._numerics.linalg import fair_shares, solve, times
from combined_losses.weightings.gramian import GramianWeighting
from combined_losses.weightings.live import live_mean
from combined_losses.weightings.products import plain_cosines
from combined_losses.weightings.projections import PreferredWeighting

__all__ = ["IMTLG", "AlignedMTL", "ConFIG", "FairGrad", "NashMTL"]

_EPS = 2.0**-23  # of float32


@keras.saving.register_keras_serializable("combined_losses")
class IMTLG(GramianWeighting):
    """The step that has the same angle to every gradient; its weights sum to 1.

    `w = v / sum(v)`, `v = D^-1 C^-1 1`, C the cosines of the gradients and D their lengths; where
    the sum is not above 0, divided by the sum of the magnitudes instead, which keeps the direction.
    Weights may be negative. It promises `g_i . d >= 0` for every component where no gradient is a
    combination of the others, at the model's output by default, with `gradients="parameters"` at
    the parameters. When to use it: components of different units that should get better alike; the
    units do not change the direction.

    Args:
        gradients, shared_layers, log_conflict, update_every, warmup, min_weight, max_weight,
            total: as in `cl.weightings.GramianWeighting`.

    References:
        - Liu et al., 2021, Towards Impartial Multi-task Learning, ICLR (the paper's IMTL-G).

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.IMTLG())
    """

    sums_to_one = True

    def combine(self, gradients, state):
        live, norms = gradients.live, gradients.norms
        # Times the mean length, which the quotient cancels: v stays a float32 number.
        v = live * solve(gradients.cosines, live) * (live_mean(norms, live) / norms)
        size = ops.sum(v)
        size = ops.where(size > 0, size, ops.sum(ops.abs(v)))
        return v / ops.maximum(size, 1e-30)


@keras.saving.register_keras_serializable("combined_losses")
class ConFIG(PreferredWeighting):
    """The step that has the same angle to every gradient, as long as its projections together.

    `w = D^-1 z * sum(n) / sum(z)`, `z = C^-1 1`, C the cosines of the gradients and D their
    lengths n; with a preference p, `z = C^-1 p` and `sum(n p) / sum(z p)`: the cosines between step
    and gradients are then as p. Weights may be negative. It promises `g_i . d >= 0` for every
    component where no gradient is a combination of the others, at the model's output by default,
    with `gradients="parameters"` at the parameters. When to use it: physics-informed networks; the
    units of the components do not change the direction. For two components it is
    `InverseGradientNorm`.

    Args:
        preference: None (default), all alike, or a list of k numbers above 0; their sum does not
            matter.
        gradients, shared_layers, log_conflict, update_every, warmup, min_weight, max_weight,
            total: as in `cl.weightings.GramianWeighting`.

    References:
        - Liu et al., 2024, ConFIG: Towards Conflict-free Training of Physics Informed Neural
          Networks, arXiv:2408.11104.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.ConFIG())
    """

    def combine(self, gradients, state):
        norms, live = gradients.norms, gradients.live
        p = self.shares(gradients)
        z = live * solve(gradients.cosines, p)
        # d = s J' D^-1 z has g_i . d = s n_i p_i and |d|^2 = s^2 z' C z = s^2 (z . p), so that its
        # projections sum to |d| at s = sum(n p) / (z . p).
        weights = ops.sum(norms * p) / norms * z
        return weights / ops.maximum(ops.sum(z * p), 1e-30)


@keras.saving.register_keras_serializable("combined_losses")
class NashMTL(GramianWeighting):
    """The bargain of the components over the step: `G a = 1 / a`, `a > 0`, cut to a length.

    `w = a * min(1, max_norm / |J' a|)`; `|J' a|` is `sqrt(k)` always. It promises `g_i . d > 0`
    for every component, at the model's output by default, with `gradients="parameters"` at the
    parameters. When to use it: components of different units; neither they nor the scale of the
    losses change the step, whose length is constant, so that the learning rate has to fall in the
    end.

    Args:
        max_norm: the largest length of the step, above 0, default 1.
        gradients, shared_layers, log_conflict, update_every, warmup, min_weight, max_weight,
            total: as in `cl.weightings.GramianWeighting`.

    References:
        - Navon et al., 2022, Multi-Task Learning as a Bargaining Game, arXiv:2202.01017.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.NashMTL(max_norm=0.5))
    """

    def __init__(self, max_norm=1.0, **kwargs):
        super().__init__(**kwargs)
        check_number("NashMTL", "max_norm", max_norm, 0, exclusive=True)
        self.max_norm = max_norm

    def combine(self, gradients, state):
        cut = ops.minimum(float(self.max_norm) / ops.sqrt(gradients.count), 1.0)
        return cut * _fair(gradients, 1.0)


@keras.saving.register_keras_serializable("combined_losses")
class FairGrad(GramianWeighting):
    """A fair share of the step for every component: `G w = w^(-1 / alpha)`, `w > 0`.

    It promises `g_i . d > 0` for every component, at the model's output by default, with
    `gradients="parameters"` at the parameters. `alpha = 1` is `NashMTL` without a largest length;
    the larger alpha, the more the component with the least gain counts. When to use it: to choose
    between the sum (alpha near 0) and the worst component. The units of the components do not
    change the step for `alpha = 1` only. Where lengths differ much, an alpha far from 1 leaves
    some next to no gain (a cosine of 10^-6 for `alpha = 8` and lengths over 10^6); the promise
    is kept to the rounding of float32.

    Args:
        alpha: in `[0.1, 100]`, default 1.
        gradients, shared_layers, log_conflict, update_every, warmup, min_weight, max_weight,
            total: as in `cl.weightings.GramianWeighting`.

    References:
        - Ban and Ji, 2024, Fair Resource Allocation in Multi-Task Learning, arXiv:2402.15638.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.FairGrad(alpha=2.0))
    """

    def __init__(self, alpha=1.0, **kwargs):
        super().__init__(**kwargs)
        why = "beyond, the powers in its equation are no float32 numbers"
        check_number("FairGrad", "alpha", alpha, 0.1, maximum=100, why=why)
        self.alpha = alpha

    def combine(self, gradients, state):
        return _fair(gradients, self.alpha)


def _fair(gradients, alpha):
    """`w > 0` of `G w = w^(-1 / alpha)`."""
    live = gradients.live
    # With x = n w: n_i (C x)_i = (x_i / n_i)^(-1 / alpha), x_i (C x)_i^alpha = n_i^(1 - alpha).
    # A factor f of the right side is f^(1 / (1 + alpha)) of x: here their geometric mean is 1.
    logs = ops.log(gradients.norms)
    mean = live_mean(logs, live)
    targets = ops.where(live > 0, (1 - alpha) * (logs - mean), 0.0)
    steps = 20 if 0.5 <= alpha <= 2 else 30
    shares = fair_shares(gradients.cosines, targets, alpha, steps)
    # Beyond float32 only with lengths beyond 1e-18 and 1e18.
    weights = shares + (1 - alpha) / (1 + alpha) * mean - logs
    return ops.exp(ops.clip(weights, -87.0, 88.0))


@keras.saving.register_keras_serializable("combined_losses")
class AlignedMTL(PreferredWeighting):
    """The gradients as the nearest ones that are orthogonal and of one length, then their mean.

    `w = sqrt(sigma) V L^(-1/2) V' p`, `G = V L V'` on the eigenvalues above
    `k * eps * max(L)`, eps that of float32, and sigma one of them. Weights may be negative. It does
    not promise that no component is made worse, wherever the gradients are taken: at the model's
    output by default, with `gradients="parameters"` at the parameters. When to use it: gradients of
    lengths within some three orders of magnitude; beyond, eigenvalues fall below the bound one by
    one, and the step jumps where one does. A common factor of the losses is a factor of the step.

    Args:
        scale: sigma, of the eigenvalues that are kept: `"min"` (default), `"median"`, the lower
            one, or `"mean"`.
        preference: p, None (default), all alike, or a list of k numbers above 0; their sum does not
            matter.
        gradients, shared_layers, log_conflict, update_every, warmup, min_weight, max_weight,
            total: as in `cl.weightings.GramianWeighting`.

    References:
        - Senushkin et al., 2023, Independent Component Alignment for Multi-Task Learning, CVPR,
          arXiv:2305.19000.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.AlignedMTL())
    """

    sums_to_one = True

    def __init__(self, scale="min", preference=None, **kwargs):
        super().__init__(preference=preference, **kwargs)
        if scale not in ("min", "median", "mean"):
            raise ValueError(
                f"`scale` of AlignedMTL must be 'min', 'median' or 'mean'. Received: {scale!r}"
            )
        self.scale = scale

    def combine(self, gradients, state):
        norms = gradients.live * gradients.norms
        norms = norms / ops.maximum(ops.max(norms), 1e-30)
        # Without the ridge, which would lift eigenvalues of 0 above the bound.
        gramian = plain_cosines(gradients) * norms[:, None] * norms[None, :]
        values, vectors = ops.eigh(gramian)
        kept = values > gradients.count * _EPS * ops.max(values)
        inverse = ops.where(kept, ops.rsqrt(ops.where(kept, values, 1.0)), 0.0)
        along = times(ops.transpose(vectors), self.shares(gradients))
        weights = times(vectors, inverse * along)
        return ops.sqrt(self._sigma(values, kept)) * weights

    def _sigma(self, values, kept):
        number = ops.maximum(ops.sum(ops.cast(kept, "int32")), 1)
        if self.scale == "mean":
            return ops.sum(ops.where(kept, values, 0.0)) / ops.cast(number, "float32")
        # In ascending order: the kept ones are the last.
        first = self.num_components - number
        return ops.take(values, first + ((number - 1) // 2 if self.scale == "median" else 0))
