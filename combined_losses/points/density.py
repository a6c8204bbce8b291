"""How probable a point is, by its residual."""

from typing import TYPE_CHECKING, Any

import numpy as np

from combined_losses._core.checks import check_number

if TYPE_CHECKING:
    from numpy.typing import NDArray


def residual_density(
    name: str, residuals: "NDArray[Any]", count: int, k: float, c: float
) -> "NDArray[np.float64]":
    """The probability of each candidate: proportional to |r|^k / mean(|r|^k) + c.

    Wu et al. 2023, arXiv 2207.10289, equation (2). |r| is the Euclidean norm over further axes.
    """
    check_number("PointSets.adapt", "k", k, minimum=0)
    check_number("PointSets.adapt", "c", c, minimum=0)
    if residuals.ndim < 1 or len(residuals) != count or count < 1:
        raise ValueError(
            f"The residuals of the set '{name}' must have a row for each of its {count} "
            f"candidates. Received: an array of shape {residuals.shape}"
        )
    rows = residuals.reshape(count, -1).astype("float64")
    if not np.isfinite(rows).all():
        bad = np.count_nonzero(~np.isfinite(rows).all(axis=1))
        raise ValueError(
            f"The residuals of the set '{name}' must be finite. "
            f"Received: NaN or inf at {bad} of {count} candidates"
        )
    largest = np.abs(rows).max(initial=0.0)
    if largest == 0:  # all candidates are alike
        return np.full(count, 1 / count)
    # A common factor of the residuals cancels out. Without it no power overflows.
    powers = np.linalg.norm(rows / largest, axis=1) ** k
    density = powers / powers.mean() + c
    probability: NDArray[np.float64] = density / density.sum()
    return probability
