"""What is gathered of the components of a model, batch by batch."""

import keras
import numpy as np

from combined_losses._core.traits import Traits

# Two values closer than this are one: float32 has 7 digits, and sums lose one or two.
_SAME = 1e-5

# A loss that does not read the weights computes the same numbers a second time: they differ by a
# few roundings, where a compiler has joined other steps.
_ROUNDINGS = 4 * float(np.finfo("float32").eps)

# A logarithm of 1 is one of 1 - 1e-7 in Keras, also as a sum over a few hundred of them.
_CLIPPED = 1e-6

_SMALLEST = np.array([True, False, False, False, True, False])  # of `Facts.numbers`


class Evidence:
    """What was measured of k parts, batch by batch.

    What is said of each part is an array `(k,)`.

    Attributes:
        measured: what was `Measured`, a list with an entry for each batch.
        labels: the class of each sample `(N,)`, or None, likewise.
        observed: what parts were given in the first batch: `Seen` by the names of the parts.
        domains, notes: those of `Facts`, by the names of the parts.
        broadcasts: which parts repeat targets for several predictions; None where nobody looked.
    """

    def __init__(self):
        self.measured = []
        self.labels = []
        self.observed = {}
        self.domains, self.notes = {}, {}
        self.broadcasts = None
        self._targets_are_whole = True
        self._faulty = []  # for each batch, by part: which samples, `(N,)`, or None
        self._unchanged = {}  # what was changed -> which parts have the same values as before
        self._gradients_nearby = None  # which parts have a gradient near a place that has none
        self._beyond_output = False  # which parts act on the model by more than its output
        self._common_places = False  # which two parts have gradients at some same place

    def add(self, measured, y):
        """What was `Measured` on one more batch, and its targets."""
        self.measured.append(measured)
        self.labels.append(_labels(y, measured.size))
        self._faulty.append(list(measured.faulty))
        self._targets_are_whole &= _are_whole(y)
        for what, pair in (("sample weights", measured.reweighted), ("mask", measured.remasked)):
            if pair is not None and measured.size > 1:
                before, after = pair
                same = _are_same(before, after, _ROUNDINGS) & (before != 0)  # 0 stays 0
                self._unchanged[what] = _all_of(self._unchanged.get(what), same)

    def add_faulty_values(self, per_sample):
        """For each part its values for each sample of the last batch, or None."""
        for index, values in enumerate(per_sample):
            if values is not None:
                bad = ~np.isfinite(values)
                known = self._faulty[-1][index]
                self._faulty[-1][index] = bad if known is None else bad | known

    def add_reactions(self, values):
        """The values of the last batch at other predictions."""
        before = self.measured[-1].values
        clipped = (np.abs(values) <= _CLIPPED) & (np.abs(before) <= _CLIPPED)
        # What is not finite at predictions that do not belong there tells nothing.
        same = _are_same(values, before) | clipped | ~np.isfinite(values)
        self._unchanged["predictions"] = _all_of(self._unchanged.get("predictions"), same)

    def add_gradients_nearby(self, nearby):
        """Which parts have a gradient near the place where it was taken in the last batch."""
        before = self._gradients_nearby
        self._gradients_nearby = nearby if before is None else before | nearby

    def add_beyond_output(self, beyond):
        """Which parts act on the model by more than its output, as far as known."""
        self._beyond_output = self._beyond_output | beyond

    def may_be_apart(self):
        """Whether two parts of the last batch may have no place in common."""
        gramian = self.measured[-1].gramian
        return bool(np.any(gramian == 0))

    def add_common_places(self, common):
        """Which two parts of the last batch have gradients at some same place."""
        self._common_places = self._common_places | common

    @property
    def acts_beyond_output(self):
        """Which parts act on the model by more than its output."""
        return np.zeros(len(self.values), bool) | self._beyond_output

    @property
    def have_common_places(self):
        """Which two parts have gradients at some same place, `(k, k)`, in any batch."""
        not_orthogonal = [np.nan_to_num(m.gramian, nan=1.0) != 0 for m in self.measured]
        return np.any(not_orthogonal, axis=0) | self._common_places

    def may_broadcast(self, parts):
        """Whether the targets of a part may be repeated, which a closer look has to tell."""
        observed = [self.observed.get(part.name) for part in parts]
        return not self._targets_are_whole and any(map(may_broadcast, filter(None, observed)))

    def add_broadcasts(self, turned, moved):
        """Values with repeated targets and channels turned around, and with other targets."""
        values = self.measured[-1].values
        repeats = _are_same(turned, values) & ~_are_same(moved, values)
        self.broadcasts = _all_of(self.broadcasts, repeats)

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
        known = ~np.isnan(stacked)
        total = np.where(known, stacked * shares, 0.0).sum(axis=0)
        count = np.where(known, shares, 0.0).sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1e-300), np.nan)

    @property
    def values(self):
        """The values as `evaluate` gives them: NaN where they are NaN in one batch."""
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
        return ~self._unchanged.get("predictions", np.ones(len(self.values), bool))

    @property
    def without_gradient(self):
        """Which parts have no gradient at any prediction, nor near one."""
        none = np.all([m.gramian.diagonal() == 0 for m in self.measured], axis=0)
        return none if self._gradients_nearby is None else none & ~self._gradients_nearby

    @property
    def not_finite(self):
        """Which parts have a value or a gradient that is not finite."""
        bad = [~np.isfinite(m.values) | ~np.isfinite(m.gramian.diagonal()) for m in self.measured]
        return np.any(bad, axis=0)

    def ignores(self, what):
        """Which parts have the same value with other sample weights, or with another mask."""
        return self._unchanged.get(what, np.zeros(len(self.values), bool))

    def facts_of(self, name):
        """What the losses of a component were given in all batches, a list of arrays `(6,)`."""
        batches = [m.facts.get(name, []) for m in self.measured]
        stacked = [np.stack(each) for each in zip(*batches, strict=False)]
        return [np.where(_SMALLEST, each.min(axis=0), each.max(axis=0)) for each in stacked]

    def faulty_samples(self, index):
        """The samples at which a part is not finite, by their place in the data, or None."""
        pairs = zip(self.measured, [batch[index] for batch in self._faulty], strict=True)
        bad = [np.zeros(m.size, bool) if found is None else found for m, found in pairs]
        places = np.flatnonzero(np.concatenate(bad))
        return places if len(places) else None


def _are_same(values, others, tolerance=_SAME):
    """Which values are the same; those that are not finite tell nothing."""
    with np.errstate(invalid="ignore"):
        size = np.maximum(np.abs(values), np.abs(others))
        return np.abs(values - others) <= tolerance * size


def _all_of(before, now):
    return now if before is None else before & now


def may_broadcast(seen):
    """Whether targets of one number stand beside several predictions, in a loss of the user's."""
    true, pred = seen.y_true, seen.y_pred
    if seen.traits != Traits() or true is None or pred is None or len(true) != len(pred):
        return False
    return any(a != b and 1 in (a, b) for a, b in zip(true, pred, strict=True))


def _are_whole(y):
    """Whether all targets are whole numbers, such as class ids."""
    leaves = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    return all(leaf.dtype.kind != "f" or np.all(leaf == np.floor(leaf)) for leaf in leaves)


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
