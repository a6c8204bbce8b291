"""What is gathered of the components of a model, batch by batch."""

import keras
import numpy as np

# Two values closer than this are one: float32 has 7 digits, and sums lose one or two.
_SAME = 1e-5

# A logarithm of 1 is one of 1 - 1e-7 in Keras, also as a sum over a few hundred of them.
_CLIPPED = 1e-6


class Evidence:
    """What was measured of k parts, batch by batch."""

    def __init__(self):
        self.measured = []
        self.seen = {}
        self.labels = []
        self._faulty = []  # for each batch, by part: samples, or None
        self._reacts = None
        self._unweighted = None
        self._unmasked = None

    def add(self, measured, y):
        self.measured.append(measured)
        self.labels.append(_labels(y, measured.size))
        self._faulty.append(list(measured.faulty))

    def add_faulty_values(self, per_sample):
        """For each part its values for each sample of the last batch, or None."""
        for index, values in enumerate(per_sample):
            if values is not None:
                bad = ~np.isfinite(values)
                known = self._faulty[-1][index]
                self._faulty[-1][index] = bad if known is None else bad | known

    def add_reactions(self, values):
        """The values of the last batch at other predictions."""
        self._reacts = _either(self._reacts, self._differ(values))

    def add_reweighted(self, values):
        """The values of the last batch with other sample weights."""
        self._unweighted = _either(self._unweighted, self._differ(values))

    def add_remasked(self, values):
        """The values of the last batch with another mask."""
        self._unmasked = _either(self._unmasked, self._differ(values))

    def _differ(self, values):
        """Which parts have another value than before, as far as that can be told."""
        before = self.measured[-1].values
        finite = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            size = np.maximum(np.abs(values), np.abs(before))
            return finite & ~(np.abs(values - before) <= _SAME * size)

    @property
    def sizes(self):
        return np.array([m.size for m in self.measured], "float64")

    @property
    def samples(self):
        return int(self.sizes.sum())

    def mean(self, what):
        """The mean of an attribute of `Measured` over all samples; of NaN, that of the others."""
        stacked = np.stack([np.asarray(getattr(m, what), "float64") for m in self.measured])
        shares = self.sizes.reshape(-1, *([1] * (stacked.ndim - 1)))
        fine = ~np.isnan(stacked)
        total = np.where(fine, stacked * shares, 0.0).sum(axis=0)
        count = np.where(fine, shares, 0.0).sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1e-300), np.nan)

    @property
    def values(self):
        """As `evaluate` gives them: NaN where one batch is."""
        shares = self.sizes / self.sizes.sum()
        return np.stack([m.values for m in self.measured]).T @ shares

    @property
    def total(self):
        return float(np.array([m.total for m in self.measured]) @ self.sizes / self.sizes.sum())

    @property
    def always_zero(self):
        """Which parts are 0, or what Keras clips a probability to, on every batch."""
        return np.all([np.abs(m.values) <= _CLIPPED for m in self.measured], axis=0)

    @property
    def reacts(self):
        """Which parts change with the predictions, of those that have no gradient."""
        none = np.zeros(len(self.measured[0].values), bool)
        return none if self._reacts is None else self._reacts

    @property
    def without_gradient(self):
        return np.all([m.gramian.diagonal() == 0 for m in self.measured], axis=0)

    @property
    def not_finite(self):
        """Which parts have a value or a gradient that is not finite."""
        bad = [~np.isfinite(m.values) | ~np.isfinite(m.gramian.diagonal()) for m in self.measured]
        return np.any(bad, axis=0)

    def ignores(self, what):
        """Which parts have the same value with other sample weights, or with another mask."""
        differ = self._unweighted if what == "sample weights" else self._unmasked
        return np.zeros(len(self.values), bool) if differ is None else ~differ

    def faulty_samples(self, index):
        """The samples at which a part is not finite, by their place in the data, or None."""
        pairs = zip(self.measured, [batch[index] for batch in self._faulty], strict=True)
        bad = [np.zeros(m.size, bool) if found is None else found for m, found in pairs]
        places = np.flatnonzero(np.concatenate(bad))
        return places if len(places) else None


def _either(before, now):
    return now if before is None else before | now


def _labels(y, size):
    """The class of each sample, `(N,)`, where targets are class ids or one-hot; else None."""
    leaves = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    if len(leaves) != 1 or leaves[0].dtype.kind not in "fiub" or len(leaves[0]) != size:
        return None
    y = leaves[0].reshape(size, -1)
    if y.shape[1] == 1:
        return y[:, 0].astype(int) if np.all(y == np.floor(y)) else None
    one_hot = np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1)
    return y.argmax(axis=1) if one_hot and leaves[0].ndim == 2 else None
