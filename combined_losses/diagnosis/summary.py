"""What the components of a model amount to: weights, shares, cosines."""

from typing import TYPE_CHECKING, Any

import numpy as np

from combined_losses.diagnosis.evidence import Evidence
from combined_losses.diagnosis.measurer import At, Measurer
from combined_losses.diagnosis.parts import Part

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Summary:
    """The numbers of a diagnosis, from a `Measurer` and its `Evidence`.

    Attributes:
        parts: a list of k `Part`, and their `names`.
        values, weights, gradient_norms: `(k,)`; NaN: unknown.
        shares, gradient_shares: `(k,)`, the shares of `|weight * value|` and of `|weight| * norm`
            among the parts with the same parent; in [0, 1].
        cosines: `(k, k)`, between the weighted gradients; NaN where there is none.
        total: the loss.
        samples, batches: how many were looked at.
        rows: `(k,)`, over how many rows each of the values is a mean.
        at: where the gradients were taken, "output" or "parameters".
        beyond: `(k,)`, which parts have a gradient that does not show at the output.
    """

    def __init__(self, measurer: Measurer, evidence: Evidence) -> None:
        self.parts: list[Part] = measurer.parts
        self.names: list[str] = [part.name for part in self.parts]
        self.at: At = measurer.at
        self.samples: int = evidence.samples
        self.batches: int = len(evidence.measured)
        self.values: NDArray[Any] = evidence.values
        self.rows: NDArray[Any] = evidence.rows
        self.weights: NDArray[Any] = evidence.weights
        self.total: float = evidence.total
        gramian = evidence.gramian
        self.gradient_norms: NDArray[Any] = np.sqrt(gramian.diagonal())
        # No gradient is seen here of a part that acts on the model in other ways, nor of one whose
        # weight is 0.
        self.beyond: NDArray[np.bool_] = evidence.acts_beyond_output & (self.at == "output")
        hidden = self.beyond | (self.weights == 0)
        self.gradient_norms[hidden | evidence.not_finite] = np.nan
        self.cosines: NDArray[Any] = cosines(gramian, self.weights)
        is_unknown = np.isnan(self.gradient_norms)
        self.cosines[is_unknown] = self.cosines[:, is_unknown] = np.nan
        self.shares: NDArray[Any] = self._shares(self.values)
        self.gradient_shares: NDArray[Any] = self._shares(self.gradient_norms)

    @property
    def has_own_rows(self) -> bool:
        """Whether parts have rows of their own, so that the number of samples says too little."""
        return bool(np.any(self.rows != self.samples))

    def siblings(self, index: int) -> list[int]:
        """The indices of the other parts with the same parent."""
        parent = self.parts[index].parent
        return [i for i, p in enumerate(self.parts) if p.parent == parent and i != index]

    def depth(self, index: int) -> int:
        """How many components a part is nested in."""
        parent = self.parts[index].parent
        return 0 if parent is None else 1 + self.depth(self.names.index(parent))

    def descendants(self, index: int) -> list[int]:
        """The indices of all parts inside a part, at any depth."""
        own = [i for i, part in enumerate(self.parts) if part.parent == self.names[index]]
        return [j for i in own for j in (i, *self.descendants(i))]

    def _shares(self, sizes: np.ndarray) -> np.ndarray:
        """Of each part the weighted size, divided by the sum of these of it and its siblings."""
        weights = np.where(np.isnan(self.weights), 1.0, self.weights)
        # A weight of 0 makes a share of 0, also where the size is unknown.
        sizes = np.where(weights == 0, 0.0, np.abs(weights * sizes))
        totals = [np.nansum(sizes[[i, *self.siblings(i)]]) for i in range(len(sizes))]
        with np.errstate(invalid="ignore", divide="ignore"):
            shares: np.ndarray = sizes / np.array(totals)
        return shares

    def cosine_to_others(self, index: int) -> tuple[float, float]:
        """The smallest and the mean cosine to the siblings of a part; NaN where there is none."""
        cosines = self.cosines[index, self.siblings(index)]
        cosines = cosines[~np.isnan(cosines)]
        if not len(cosines):
            return np.nan, np.nan
        return float(cosines.min()), float(cosines.mean())

    def proposed_weights(self) -> dict[str, float]:
        """Weights by name with which the gradients of all components are equally long.

        The first component with a gradient keeps its weight, and so do those without a gradient.
        """
        top = [i for i, part in enumerate(self.parts) if part.parent is None]
        norms, weights = self.gradient_norms, self.weights
        with_gradient = [i for i in top if norms[i] > 0]
        proposed: dict[str, float] = {}
        for i in top:
            weight = weights[i]
            if i in with_gradient:
                first = with_gradient[0]
                length = abs(weights[first]) * norms[first]
                weight = np.sign(weight) * length / norms[i]
            proposed[self.names[i]] = float(f"{weight:.3g}")
        return proposed


def cosines(gramian: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The cosines between the weighted gradients; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.sqrt(gramian.diagonal())
        signs = np.where(np.isnan(weights), 1.0, np.sign(weights))
        found = gramian / np.outer(lengths, lengths) * np.outer(signs, signs)
    found[:, weights == 0] = np.nan
    found[weights == 0] = np.nan
    clipped: np.ndarray = np.clip(found, -1.0, 1.0)
    return clipped
