"""The formulas of the focal losses, finite and sloped at the ends."""

from keras import ops

from combined_losses._core.probabilities import as_probability
from combined_losses._numerics.floats import slog


def _fade(miss, entropy, gamma):
    """`max(miss, 1e-30)^gamma * entropy`; the entropy may have either sign."""
    # The floor is for gamma < 1, where the derivative of the power at 0 is infinite: below it relu
    # passes no gradient, and relu(miss - floor) + floor is the maximum, with a shorter way back
    # than `maximum` has on torch. From gamma = 1 on the derivative at 0 is finite; the floor would
    # add 1e-30 at most to the power, to be multiplied by an entropy of 0: nothing a float32 keeps.
    if gamma == 0:
        return entropy
    if gamma == 1:
        return miss * entropy
    if gamma == 2:
        return miss * miss * entropy
    miss = ops.relu(miss - 1e-30) + 1e-30 if gamma < 1 else ops.relu(miss)
    return miss**gamma * entropy


def binary(y, p, gamma, from_logits, steepest):
    """The binary focal loss of every element; `steepest` is as in `slog`."""
    miss, entropy = _of_logits(y, p) if from_logits else _of_probabilities(y, p, steepest)
    return _fade(miss, entropy, gamma)


def _of_probabilities(y, p, steepest):
    """`miss` and cross-entropy of binary probabilities."""
    p = as_probability(p, y)
    miss = y * (1 - p) + (1 - y) * p
    return miss, -(y * slog(p, steepest) + (1 - y) * slog(1 - p, steepest))


def _of_logits(y, z):
    """`miss` and cross-entropy of binary logits, exact also where they are right and large."""
    # (y, z) and (1 - y, -z) are the same. With side = 1 where y <= 1/2 and -1 elsewhere,
    # (label, logit) is the one of the two whose label is at most 1/2:
    # label = side (y - round(y)) is y - 0, or -(y - 1).
    rounded = ops.round(y)
    side = 1 - 2 * rounded
    minus_label = side * (rounded - y)
    logit = side * z
    # miss = y sigmoid(-z) + (1 - y) sigmoid(z), with sigmoid(-z) = 1 - sigmoid(z); and
    # ce = max(z, 0) - z y + log1p(exp(-|z|)), where softplus(z) = max(z, 0) + log1p(exp(-|z|)).
    # Nothing cancels: both terms of miss are positive, and label * logit is at most half of
    # softplus. Its slope is sigmoid(z), so that of ce at z = 0 is 1/2 - y on every backend; the
    # slopes of max and |z| there are not.
    miss = (1 + 2 * minus_label) * ops.sigmoid(logit) - minus_label
    return miss, ops.softplus(logit) + minus_label * logit


def of_log_probability(log_p, gamma):
    """`max(1 - p, 1e-30)^gamma log(p)`, from `log(p)`."""
    return _fade(-ops.expm1(log_p), log_p, gamma)


def of_probability(p, gamma, steepest):
    """`max(1 - p, 1e-30)^gamma log(p)`, from `p`; `steepest` is as in `slog`."""
    p = as_probability(p, 1.0)  # the class is there, or the value does not count
    return _fade(1 - p, slog(p, steepest), gamma)
