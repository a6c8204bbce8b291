"""What the components of a model amount to: weights, shares, cosines."""

import numpy as np


class Summary:
    """The numbers of a diagnosis, from a `Measurer` and its `Evidence`.

    Attributes:
        parts: a list of k `Part`, and their `names`.
        values, weights, gradient_norms: `(k,)`; NaN: unknown.
        shares, gradient_shares: `(k,)`, of `|weight * value|` and of `|weight| * norm`, among those
            with the same parent; in [0, 1].
        cosines: `(k, k)`, between the weighted gradients; NaN where there is none.
        total: the loss.
        samples, batches: how many were looked at.
        at: where the gradients were taken.
        beyond: `(k,)`, which parts have a gradient that does not show at the output.
    """

    def __init__(self, measurer, evidence):
        self.parts = measurer.parts
        self.names = [part.name for part in self.parts]
        self.at = measurer.at
        self.samples, self.batches = evidence.samples, len(evidence.measured)
        self.values, self.weights = evidence.values, evidence.mean("weights")
        self.total = evidence.total
        gramian = evidence.mean("gramian")
        self.gradient_norms = np.sqrt(gramian.diagonal())
        # What acts on the model in other ways, and what is switched off, shows no gradient here.
        self.beyond = evidence.acts_beyond_output & (self.at == "output")
        hidden = self.beyond | (self.weights == 0)
        self.gradient_norms[hidden | evidence.not_finite] = np.nan
        self.cosines = cosines(gramian, self.weights)
        unknown = np.isnan(self.gradient_norms)
        self.cosines[unknown] = self.cosines[:, unknown] = np.nan
        self.shares = self._shares(self.values)
        self.gradient_shares = self._shares(self.gradient_norms)

    def siblings(self, index):
        """The indices of the other parts with the same parent."""
        parent = self.parts[index].parent
        return [i for i, p in enumerate(self.parts) if p.parent == parent and i != index]

    def depth(self, index):
        """How many parts it is a part of, one inside the other."""
        parent = self.parts[index].parent
        return 0 if parent is None else 1 + self.depth(self.names.index(parent))

    def descendants(self, index):
        """The indices of its parts, and of theirs."""
        own = [i for i, part in enumerate(self.parts) if part.parent == self.names[index]]
        return [j for i in own for j in (i, *self.descendants(i))]

    def _shares(self, sizes):
        weights = np.where(np.isnan(self.weights), 1.0, self.weights)
        sizes = np.where(weights == 0, 0.0, np.abs(weights * sizes))  # also where none is seen
        totals = [np.nansum(sizes[[i, *self.siblings(i)]]) for i in range(len(sizes))]
        with np.errstate(invalid="ignore", divide="ignore"):
            return sizes / np.array(totals)

    def cosine_to_others(self, index):
        """The smallest and the mean cosine to the others with the same parent; NaN: none."""
        known = self.cosines[index, self.siblings(index)]
        known = known[~np.isnan(known)]
        return (known.min(), known.mean()) if len(known) else (np.nan, np.nan)

    def proposed_weights(self):
        """Weights by name with which the gradients of all components are equally long.

        That of the first one with a gradient stays; one without a gradient keeps its own, too.
        """
        top = [i for i, part in enumerate(self.parts) if part.parent is None]
        norms, weights = self.gradient_norms, self.weights
        live = [i for i in top if norms[i] > 0]
        proposed = {}
        for i in top:
            weight = weights[i]
            if i in live:
                length = abs(weights[live[0]]) * norms[live[0]]
                weight = np.sign(weight) * length / norms[i]
            proposed[self.names[i]] = float(f"{weight:.3g}")
        return proposed


def cosines(gramian, weights):
    """The cosines between the weighted gradients; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.sqrt(gramian.diagonal())
        signs = np.where(np.isnan(weights), 1.0, np.sign(weights))
        found = gramian / np.outer(lengths, lengths) * np.outer(signs, signs)
    found[:, weights == 0] = np.nan
    found[weights == 0] = np.nan
    return np.clip(found, -1.0, 1.0)
