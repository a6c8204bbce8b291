"""The formulas of the focal losses, finite and with a slope at probabilities of 0 and 1."""

from keras import ops

from combined_losses._backend import backend
from combined_losses._core.probabilities import as_probability
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import slog


def fade(miss: Tensor, entropy: Tensor | float, gamma: float) -> Tensor:
    """`max(miss, 1e-30)^gamma * entropy`, gamma > 0; the entropy may have either sign."""
    # For gamma < 1 the derivative of the power at 0 is infinite. So we put a floor under miss,
    # relu(miss - floor) + floor, which passes no gradient below the floor. It equals
    # max(miss, floor), but torch differentiates it faster. For gamma >= 1 the derivative is finite,
    # and we leave the floor out: it would add at most 1e-30 to a factor of an entropy of 0.
    if gamma == 1:
        return miss * entropy
    if gamma == 2:
        return miss * miss * entropy
    miss = ops.relu(miss - 1e-30) + 1e-30 if gamma < 1 else ops.relu(miss)
    return miss**gamma * entropy


def miss_and_entropy(
    y: Tensor, p: Tensor, from_logits: bool, steepest: float | None
) -> tuple[Tensor, Tensor]:
    """The probability of the wrong class and the cross-entropy of each element."""
    return _of_logits(y, p) if from_logits else _of_probabilities(y, p, steepest)


def smoothed(y: Tensor, smoothing: float, classes: int = 2) -> Tensor:
    """Labels that give up a share, which all classes have in equal parts."""
    return y if smoothing == 0 else y * (1 - smoothing) + smoothing / classes


def binary(
    y: Tensor,
    p: Tensor,
    gamma: float,
    from_logits: bool,
    steepest: float | None,
    pos_weight: float | Tensor | None = None,
) -> Tensor:
    """The binary focal loss of each element; p may hold logits, `steepest` is as in `slog`.

    `pos_weight` multiplies the term of positives in the entropy.
    """
    if pos_weight is not None:
        return _with_weight(y, p, gamma, from_logits, steepest, pos_weight)
    if gamma == 0 and from_logits:
        return _entropy_of_logits(y, p)
    if gamma == 0:
        return _entropy(y, as_probability(p, y), steepest)
    miss, entropy = miss_and_entropy(y, p, from_logits, steepest)
    return fade(miss, entropy, gamma)


def _with_weight(
    y: Tensor,
    p: Tensor,
    gamma: float,
    from_logits: bool,
    steepest: float | None,
    pos_weight: float | Tensor,
) -> Tensor:
    if from_logits:
        positive, negative, right = ops.softplus(-p), ops.softplus(p), ops.sigmoid(p)
        wrong = ops.sigmoid(-p)
    else:
        right = as_probability(p, y)
        wrong = 1 - right
        positive, negative = -slog(right, steepest), -slog(wrong, steepest)
    entropy = pos_weight * y * positive + (1 - y) * negative
    return entropy if gamma == 0 else fade(y * wrong + (1 - y) * right, entropy, gamma)


def _of_probabilities(y: Tensor, p: Tensor, steepest: float | None) -> tuple[Tensor, Tensor]:
    """The probability of the wrong class, `miss`, and the cross-entropy, from probabilities."""
    p = as_probability(p, y)
    return y * (1 - p) + (1 - y) * p, _entropy(y, p, steepest)


def _entropy(y: Tensor, p: Tensor, steepest: float | None) -> Tensor:
    return -(y * slog(p, steepest) + (1 - y) * slog(1 - p, steepest))


def _of_logits(y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """The same from logits, exact even for logits that are right and large."""
    if backend.is_hard(y):  # labels of 0 and 1: the general formulas with half the work
        right = (2 * y - 1) * z
        return ops.sigmoid(-right), -ops.log_sigmoid(right)
    logit, minus_label = _lesser_side(y, z)
    # miss = y sigmoid(-z) + (1 - y) sigmoid(z), with sigmoid(-z) = 1 - sigmoid(z): both terms are
    # positive, so nothing cancels.
    miss = (1 + 2 * minus_label) * ops.sigmoid(logit) - minus_label
    return miss, backend.binary_entropy(logit, minus_label)


def difference_and_entropy(y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """The probability less the label, or minus that, and the cross-entropy, from logits."""
    logit, minus_label = _lesser_side(y, z)
    # A label of 0 or 1 is 0 on its lesser side, so that a right probability keeps all its digits.
    return ops.sigmoid(logit) + minus_label, backend.binary_entropy(logit, minus_label)


def _entropy_of_logits(y: Tensor, z: Tensor) -> Tensor:
    if backend.is_hard(y):
        return -ops.log_sigmoid((2 * y - 1) * z)
    return backend.binary_entropy(*_lesser_side(y, z))


def _lesser_side(y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """A logit, and minus a label of at most 1/2, with the loss of the given label and logit."""
    # (y, z) and (1 - y, -z) have the same loss. With side = 1 where y <= 1/2 and -1 elsewhere, the
    # label is side (y - round(y)): that is y - 0, or -(y - 1).
    rounded = ops.round(y)
    side = 1 - 2 * rounded
    return side * z, side * (rounded - y)


def of_log_probability(log_p: Tensor, gamma: float) -> Tensor:
    """`max(1 - p, 1e-30)^gamma log(p)`, computed from `log(p)`."""
    if gamma == 0:
        return log_p
    return fade(-ops.expm1(log_p), log_p, gamma)


def of_probability(p: Tensor, gamma: float, steepest: float | None) -> Tensor:
    """`max(1 - p, 1e-30)^gamma log(p)`, computed from `p`; `steepest` is as in `slog`."""
    p = as_probability(p, 1.0)  # the label is 1: where it is 0, the caller multiplies by 0
    log_p = slog(p, steepest)
    return log_p if gamma == 0 else fade(1 - p, log_p, gamma)
