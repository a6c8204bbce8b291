"""Rules that project gradients, so that the step conflicts with no component."""

import functools
from collections.abc import Sequence
from typing import Literal, TypeAlias, Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._core.checks import check_number, is_number
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.linalg import (
    arithmetic,
    identity,
    nonnegative,
    repeat,
    solve_on,
    times,
)
from combined_losses.weightings.active import active_mean
from combined_losses.weightings.gramian import GradientArguments, GramianWeighting
from combined_losses.weightings.products import Gradients
from combined_losses.weightings.solving import solved
from combined_losses.weightings.state import FixedWeights, RuleOutput, StateTensors

__all__ = ["MGDA", "CAGrad", "DualProj", "PCGrad", "UPGrad"]

# Every problem `min 0.5 v' G v - b' v` is solved for `z = v n`, n the lengths of the gradients: the
# cosines C then stand in place of G, and the scales of the gradients make no difference. An
# inactive component gets -1 in the linear term: since its row of C is one of the identity, the
# condition `z >= 0` keeps it at 0.


def _only_active(linear: Tensor, gradients: Gradients) -> Tensor:
    """The linear term, with -1 for inactive components."""
    return ops.where(gradients.active > 0, linear, -1.0)


@keras.saving.register_keras_serializable("combined_losses")
class MGDA(GramianWeighting):
    """The shortest weighted mean of the gradients: `w = argmin |J' w|`, `w >= 0`, `sum(w) = 1`.

    It promises `g_i . d >= |d|^2` for every component: none is made worse, and if two cannot
    both get better, the step is zero; at the model's output by default, with
    `gradients="parameters"` at the parameters. In float32 the promise needs k <= n, the number of
    entries of a gradient: with more components, or with gradients that are sums of others, it may
    be that none can get better, and the step, which should be zero, is rounding error. When to use
    it: above all, nothing should get worse. Short gradients get the largest weights, so losses of
    different scales need `normalize=True`. A common factor of the losses is a factor of the step.

    Args:
        normalize: whether the gradients are combined as if each had length 1; the weights are then
            divided by the lengths and multiplied by their mean. Default False.
        gradients, shared_layers, log_conflict: as in `cl.weightings.GramianWeighting`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.GramianWeighting`.

    References:
        - Desideri, 2012, Multiple-gradient descent algorithm for multiobjective optimization.
        - Sener and Koltun, 2018, Multi-Task Learning as Multi-Objective Optimization,
          arXiv:1810.04650.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.MGDA(normalize=True))
    """

    sums_to_one = True

    def __init__(self, normalize: bool = False, **kwargs: Unpack[GradientArguments]) -> None:
        super().__init__(**kwargs)
        if not isinstance(normalize, bool):
            raise ValueError(f"`normalize` of MGDA must be True or False. Received: {normalize!r}")
        self.normalize = normalize

    def combine(self, gradients: Gradients, state: StateTensors) -> RuleOutput:
        norms, active = gradients.norms, gradients.active
        shortest = ops.min(ops.where(active > 0, norms, np.inf))
        # Up to a factor, w = argmin 0.5 v' G v - sum(v). For z = v n the linear term is 1 / n, here
        # times min(n), which is a common factor as well.
        aim = active if self.normalize else shortest / norms
        z = solved(nonnegative, gradients.cosines, _only_active(aim, gradients)[None])[0]
        v = z * aim * active
        weights = v / ops.maximum(ops.sum(v), 1e-30)
        return weights * (active_mean(norms, active) / norms) if self.normalize else weights


class PreferredWeighting(GramianWeighting):
    """Base of the rules that prefer some components to others."""

    def __init__(
        self, preference: Sequence[float] | None = None, **kwargs: Unpack[GradientArguments]
    ) -> None:
        super().__init__(**kwargs)
        if preference is not None and not _are_positive(preference):
            raise ValueError(
                f"`preference` of {type(self).__name__} must be None or a list of numbers above 0, "
                f"one for each component. Received: {preference!r}"
            )
        self.preference = preference

    def build(self, num_components: int, weights: FixedWeights = None) -> None:
        if self.preference is not None and len(self.preference) != num_components:
            raise ValueError(
                f"`preference` of {type(self).__name__} must have one number for each of the "
                f"{num_components} components. Received: {self.preference!r}"
            )
        super().build(num_components, weights)

    def shares(self, gradients: Gradients) -> Tensor:
        """The preference, rescaled to the sum 1; 0 for inactive components."""
        p = gradients.active
        if self.preference is not None:
            # Relative to the largest, because the sum of large numbers may overflow in float32.
            wanted = np.asarray(self.preference) / max(self.preference)
            p = p * ops.convert_to_tensor(wanted.astype("float32"))
        return p / ops.maximum(ops.sum(p), 1e-30)


def _are_positive(numbers: Sequence[float]) -> bool:
    positive = isinstance(numbers, (list, tuple)) and all(map(is_number, numbers))
    return positive and all(number > 0 for number in numbers)


@keras.saving.register_keras_serializable("combined_losses")
class UPGrad(PreferredWeighting):
    """Projects each gradient to where no component is made worse; the step is the mean of them.

    `w = sum_i v_i`, `v_i = argmin { |J' v| : v >= p_i e_i }`, p the preference. It promises
    `g_i . d >= 0` for every component, at the model's output by default, with
    `gradients="parameters"` at the parameters. In float32 the promise needs k <= n, the number of
    entries of a gradient: with more components, or with gradients that are sums of others, it may
    be that none can get better, and the step, which should be zero, is rounding error (10^-6 of
    the terms of its sum). When to use it: it is the first choice among the rules that let no
    component get worse; without conflict it is the mean. A longer gradient counts in proportion:
    a factor of one loss is a factor of its part of the step.

    Args:
        preference: None (default), all alike, or a list of k numbers above 0; their sum does not
            matter.
        gradients, shared_layers, log_conflict: as in `cl.weightings.GramianWeighting`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.GramianWeighting`.

    References:
        - Quinton and Rey, 2024, Jacobian Descent for Multi-Objective Optimization,
          arXiv:2406.16232.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.UPGrad())
    """

    sums_to_one = True

    def combine(self, gradients: Gradients, state: StateTensors) -> RuleOutput:
        norms, cosines, active = gradients.norms, gradients.cosines, gradients.active
        # v_i = p_i n_i (e_i + z) / n, with z >= 0 and the linear term -C e_i.
        linear = ops.where(active[:, None] * active[None, :] > 0, -cosines, -1.0)
        z = solved(nonnegative, cosines, linear) + identity(cosines)
        p = self.shares(gradients)
        return ops.sum(p[:, None] * z * (norms[:, None] / norms[None, :]), axis=0)


@keras.saving.register_keras_serializable("combined_losses")
class DualProj(PreferredWeighting):
    """The mean of the gradients, projected to where no component is made worse.

    `w = argmin { |J' v| : v >= p }`, p the preference. It promises `g_i . d >= 0` for every
    component, at the model's output by default, with `gradients="parameters"` at the parameters. In
    float32 the promise needs k <= n, the number of entries of a gradient: with more components, or
    with gradients that are sums of others, it may be that none can get better, and the step, which
    should be zero, is rounding error (10^-6 of the terms of its sum). When to use it: the step
    should be the mean, changed as little as possible. If the mean makes no component worse, the
    step is the mean. A common factor of the losses is a factor of the step.

    Args:
        preference: None (default), all alike, or a list of k numbers above 0; their sum does not
            matter.
        gradients, shared_layers, log_conflict: as in `cl.weightings.GramianWeighting`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.GramianWeighting`.

    References:
        - Lopez-Paz and Ranzato, 2017, Gradient Episodic Memory for Continual Learning,
          arXiv:1706.08840 (here the mean is projected).

    Example:

    >>> import combined_losses as cl
    >>> rule = cl.weightings.DualProj(preference=[2.0, 1.0])
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=rule)
    """

    sums_to_one = True

    def combine(self, gradients: Gradients, state: StateTensors) -> RuleOutput:
        # v = (x + f z) / n with x = p n, f the largest entry of x, and z >= 0.
        x = self.shares(gradients) * gradients.norms
        f = ops.maximum(ops.max(x), 1e-30)
        linear = _only_active(-times(gradients.cosines, x / f), gradients)
        z = solved(nonnegative, gradients.cosines, linear[None])[0]
        return (x + f * z) / gradients.norms


Rescale: TypeAlias = Literal["squared", "linear"] | None


@keras.saving.register_keras_serializable("combined_losses")
class CAGrad(GramianWeighting):
    """Of the steps near the mean gradient, the one that is best for the component that gains least.

    `max over d of min_i g_i . d` with `|d - g0| <= c |g0|`, g0 the mean of the gradients; so
    `w = 1/k + y`, `y >= 0` and `|J' y| = c |g0|`. It promises this distance, and only for `c >= 1`
    that no component is made worse; at the model's output by default, with
    `gradients="parameters"` at the parameters. When to use it: in the end the mean should be
    minimised. A common factor of the losses is a factor of the step.

    Args:
        c: in `[0, 1e6]`, default 0.5; 0 gives the mean.
        rescale: None (default): as in the paper; `"squared"`: the weights are divided by `1 + c^2`,
            as in the authors' code; `"linear"`: by `1 + c`, as in their two-dimensional example.
        gradients, shared_layers, log_conflict: as in `cl.weightings.GramianWeighting`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.GramianWeighting`.

    References:
        - Liu et al., 2021, Conflict-Averse Gradient Descent for Multi-task Learning,
          arXiv:2110.14048.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.CAGrad(c=0.4))
    """

    sums_to_one = True

    def __init__(
        self, c: float = 0.5, rescale: Rescale = None, **kwargs: Unpack[GradientArguments]
    ) -> None:
        super().__init__(**kwargs)
        why = "beyond, nothing of the mean gradient is left in float32"
        check_number("CAGrad", "c", c, 0, maximum=1e6, why=why)
        if rescale not in (None, "squared", "linear"):
            raise ValueError(
                f"`rescale` of CAGrad must be None, 'squared' or 'linear'. Received: {rescale!r}"
            )
        self.c = c
        self.rescale = rescale

    def combine(self, gradients: Gradients, state: StateTensors) -> RuleOutput:
        added = functools.partial(_added_to_mean, float(self.c))
        added = solved(added, gradients.cosines, gradients.norms, gradients.active)
        scale = {None: 1.0, "squared": 1 + self.c**2, "linear": 1 + self.c}[self.rescale]
        return (1 / gradients.count + added) / scale


def _added_to_mean(c: float, cosines: Tensor, norms: Tensor, active: Tensor) -> Tensor:
    """The y of CAGrad."""
    xp = arithmetic(cosines)
    count = xp.maximum(xp.sum(active), 1.0)
    norms = norms / xp.maximum(xp.sum(active * norms) / count, 1e-30)
    norms = xp.where(active > 0, norms, 1.0)
    u = active * norms / count
    # z(m) = argmin of 0.5 z' C z - (m q - h)' z, and n y = z(m) for the m at which |J' y| is
    # c |g0|. q = 1 / n is taken in units of the shortest n, so that no entry of it is large.
    shortest = xp.min(norms)
    h, q = times(cosines, u), active * shortest / norms
    squared = xp.sum(u * h)
    # Of opposed gradients the mean g0 is 0. What is left of it comes from the ridge on C, 1e-6,
    # and has no meaningful direction: the radius is then 0.
    c = c if c > 1e-6 else 0.0  # a smaller c changes nothing in float32
    radius = xp.where(squared > 4e-6 * xp.sum(u * u), c * xp.sqrt(squared), 0.0)
    low = xp.min(xp.where(active > 0, norms / shortest * h, np.inf))
    high = xp.min(xp.where(active > 0, norms / shortest * (h + radius), np.inf))
    start = (low, high, xp.zeros_like(u), cosines, q, h, active, xp.square(radius))
    z = repeat(4, _narrow, start)[2]
    z = repeat(2, _on_support, (z, cosines, q, h, radius))[0]
    return xp.where(radius > 0, z, 0.0) / norms


_GRID = np.linspace(0, 1, 17, dtype="float32")


LoopState: TypeAlias = tuple[Tensor, ...]


def _narrow(_: Tensor, state: LoopState) -> LoopState:
    """One round of the search for m: the cell of a grid in which `z' C z` reaches the square."""
    low, high, _, cosines, q, h, active, square = state
    xp = arithmetic(cosines)
    # The grid is even in log(1 + |m|), because the size of m is another one for each gradient.
    first, last = (xp.sign(end) * xp.log1p(xp.abs(end)) for end in (low, high))
    grid = first + (last - first) * xp.array(_GRID)
    grid = xp.sign(grid) * xp.expm1(xp.abs(grid))
    # If |z| <= r in the metric of C, then (C z)_i >= -r. So a linear term below -2 r never binds
    # for such a z and may be raised to -2 r; for a longer z that only makes z longer still.
    radius = xp.sqrt(square)
    linear = xp.maximum(grid[:, None] * q[None, :] - h[None, :], -2 * radius)
    linear = xp.where(active > 0, linear, -2 * radius)
    scale = xp.maximum(xp.max(linear, axis=1, keepdims=True), 1e-3 * radius + 1e-30)
    z = scale * nonnegative(cosines, linear / scale)
    reached = xp.sum(z * times(cosines, z), axis=1) < square
    cell = xp.clip(xp.sum(xp.where(reached, 1, 0)), 1, 16)
    low, high = xp.take(grid, cell - 1), xp.take(grid, cell)
    return low, high, xp.take(z, cell, axis=0), cosines, q, h, active, square


def _on_support(_: Tensor, state: LoopState) -> LoopState:
    """z from the equations on its support: `C z = m q - h` there, and `z' C z = radius^2`."""
    z, cosines, q, h, radius = state
    xp = arithmetic(cosines)
    support = xp.where(z > 1e-6 * xp.max(z), 1.0, 0.0)
    q = q * support  # on an empty support q is 0, and no quotient below is infinite
    q = q / xp.maximum(xp.max(q), 1e-37)  # the unit of m does not matter here
    solved = solve_on(support[None], cosines, xp.stack([q, h]))
    a, e = solved[0], solved[1]
    # z = m a - e: the larger root of (q.a) m^2 - 2 (h.a) m + h.e = radius^2.
    square, middle = xp.sum(q * a), xp.sum(h * a)
    rest = xp.sum(h * e) - xp.square(radius)
    root = xp.sqrt(xp.maximum(xp.square(middle) - square * rest, 0.0))
    m = (middle + root) / xp.maximum(square, 1e-30)
    return support * xp.maximum(m * a - e, 0.0), cosines, q, h, radius


@keras.saving.register_keras_serializable("combined_losses")
class PCGrad(GramianWeighting):
    """Removes from each gradient what conflicts with another; the step is the sum of the results.

    `d_i = g_i`, then for every other j in a random order `d_i -= min(d_i . g_j, 0) g_j / |g_j|^2`;
    `d = sum(d_i)`. Without conflict it is the sum. Only for two components does it promise that
    none is made worse, at the model's output by default, with `gradients="parameters"` at the
    parameters. When to use it: to compare with published results; `UPGrad` keeps the promise for
    any number of components. A common factor of the losses is a factor of the step.

    Args:
        seed: None, or an integer that makes the orders the same in every run.
        gradients, shared_layers, log_conflict: as in `cl.weightings.GramianWeighting`.
        update_every, warmup, min_weight, max_weight, total: as in `cl.weightings.GramianWeighting`.

    References:
        - Yu et al., 2020, Gradient Surgery for Multi-Task Learning, arXiv:2001.06782.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.PCGrad(seed=0))
    """

    draws = True

    def __init__(self, seed: int | None = None, **kwargs: Unpack[GradientArguments]) -> None:
        self.seed = seed  # first, since the base checks it
        super().__init__(**kwargs)

    def combine(self, gradients: Gradients, state: StateTensors) -> RuleOutput:
        k = self._k
        noise = keras.random.uniform((k, k), seed=self.generator)
        return _weights_for_orders(gradients, ops.argsort(noise, axis=1))


def _weights_for_orders(gradients: Gradients, orders: Tensor) -> Tensor:
    """The weights if gradient i visits the others in the order `orders[i]`.

    Its own index is in `orders[i]` as well; visiting itself changes nothing.
    """
    norms = gradients.norms
    # Without the ridge, because no equations are solved here.
    cosines = ops.minimum(gradients.cosines, 1.0)
    start = (identity(cosines), cosines, ops.cast(orders, "int32"))
    shares = ops.fori_loop(0, norms.shape[0], _visit, start)[0]
    scale = gradients.active[:, None] * norms[:, None] / norms[None, :]
    return ops.sum(shares * scale, axis=0)


def _visit(step: Tensor, state: LoopState) -> LoopState:
    """Every gradient i visits one other, j: `d_i = n_i sum_j shares_ij g_j / n_j`."""
    shares, cosines, orders = state
    j = orders[:, step]
    own = ops.arange(orders.shape[0], dtype="int32")
    is_j = ops.cast(ops.equal(j[:, None], own[None, :]), "float32")
    other = 1 - ops.diagonal(is_j)
    along = ops.sum(ops.take(cosines, j, axis=0) * shares, axis=1)
    shares = shares - is_j * (other * ops.minimum(along, 0.0))[:, None]
    return shares, cosines, orders
