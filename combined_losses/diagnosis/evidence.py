"""What is gathered of the components of a model, batch by batch."""

from collections.abc import Sequence

import keras
import numpy as np

from combined_losses._core.domains import Domain
from combined_losses._core.observing import Observation
from combined_losses._core.traits import Traits
from combined_losses.diagnosis.batches import Arrays
from combined_losses.diagnosis.measurer import Measured
from combined_losses.diagnosis.parts import Part

# Two values are the same if they differ by less than this share: float32 has 7 digits, and a sum
# loses one or two.
_SAME = 1e-5

# A loss that does not read the weights computes the same numbers again. They may differ by a few
# roundings, because a compiler may join other operations the second time.
_ROUNDINGS = 4 * float(np.finfo("float32").eps)

# Keras clips a probability of 1 to 1 - 1e-7, whose logarithm is about -1e-7: a cross-entropy no
# larger than this cannot become smaller.
_CLIPPED = 1e-6

# Which of `Facts.numbers` are minima over the batches; the others are maxima.
_MINIMA = np.array([True, False, False, False, True, False])


class Evidence:
    """What was measured of k parts, batch by batch.

    Properties that say which parts have some feature are arrays of booleans, `(k,)`.

    Attributes:
        measured: for each batch what was `Measured`.
        labels: for each batch the class of each row of the targets, or None.
        observed: what parts were given in the first batch: `Observation` by the names of the parts.
        domains, notes: those of `Facts`, by the names of the parts.
        broadcasts: which parts repeat targets for several predictions; None before any has been
            tested.
    """

    def __init__(self) -> None:
        self.measured: list[Measured] = []
        self.labels: list[np.ndarray | None] = []
        self.observed: dict[str, Observation] = {}
        self.domains: dict[str, list[tuple[Domain, int | None]]] = {}
        self.notes: dict[str, list[tuple[str, str]]] = {}
        self.broadcasts: np.ndarray | None = None
        self._targets_are_whole = True
        # For each batch, by part: which of its rows are not finite, or None.
        self._faulty: list[list[np.ndarray | None]] = []
        # By what was changed: which parts had the same values as before, in all batches, and of
        # which parts this was tried at all.
        self._unchanged: dict[str, np.ndarray] = {}
        self._tried: dict[str, np.ndarray] = {}
        # Which parts have a gradient near a point where they have none; None before any was tested.
        self._gradients_nearby: np.ndarray | None = None
        # Which parts act on the model by more than its output; False before any was tested.
        self._beyond_output: np.ndarray | bool = False
        # Which two parts have gradients at the same entries, `(k, k)`; False likewise.
        self._common_places: np.ndarray | bool = False

    def add(self, measured: Measured, y: Arrays) -> None:
        """Adds what was `Measured` on one more batch, and its targets."""
        self.measured.append(measured)
        self.labels.append(_labels(y))
        self._faulty.append(list(measured.faulty))
        self._targets_are_whole &= _are_whole(y)
        for what, pair in (("sample weights", measured.reweighted), ("mask", measured.remasked)):
            if pair is not None:
                before, after = pair
                tried = measured.rows > 1  # the mean of a single row may be that row
                same = _are_same(before, after, _ROUNDINGS) & (before != 0)  # 0 stays 0
                self._unchanged[what] = _all_of(self._unchanged.get(what), same | ~tried)
                self._tried[what] = self._tried.get(what, False) | tried

    def add_faulty_values(self, per_sample: Sequence[np.ndarray | None]) -> None:
        """Adds for each part its values for each row of the last batch, or None."""
        for index, values in enumerate(per_sample):
            if values is not None and len(values) == self.measured[-1].rows[index]:
                bad = ~np.isfinite(values)
                known = self._faulty[-1][index]
                self._faulty[-1][index] = bad if known is None else bad | known

    def add_reactions(self, values: np.ndarray) -> None:
        """Adds the values of the last batch at other predictions."""
        before = self.measured[-1].values
        clipped = (np.abs(values) <= _CLIPPED) & (np.abs(before) <= _CLIPPED)
        # A value that is not finite says nothing: these predictions may be outside of the domain.
        same = _are_same(values, before) | clipped | ~np.isfinite(values)
        self._unchanged["predictions"] = _all_of(self._unchanged.get("predictions"), same)

    def add_gradients_nearby(self, nearby: np.ndarray) -> None:
        """Adds which parts have a gradient near the point where it was taken in the last batch."""
        before = self._gradients_nearby
        self._gradients_nearby = nearby if before is None else before | nearby

    def add_beyond_output(self, beyond: np.ndarray) -> None:
        """Adds which parts are known to act on the model by more than its output."""
        self._beyond_output = self._beyond_output | beyond

    def may_be_apart(self) -> bool:
        """Whether the gradients of two parts of the last batch may have no entry in common."""
        gramian = self.measured[-1].gramian
        return bool(np.any(gramian == 0))

    def add_common_places(self, common: np.ndarray) -> None:
        """Adds which two parts of the last batch have gradients at the same entries, `(k, k)`."""
        self._common_places = self._common_places | common

    @property
    def acts_beyond_output(self) -> np.ndarray:
        """Which parts act on the model by more than its output."""
        return np.zeros(len(self.values), bool) | self._beyond_output

    @property
    def have_common_places(self) -> np.ndarray:
        """Which two parts have gradients at the same entries in any batch, `(k, k)`."""
        not_orthogonal = [np.nan_to_num(m.gramian, nan=1.0) != 0 for m in self.measured]
        common: np.ndarray = np.any(not_orthogonal, axis=0) | self._common_places
        return common

    def may_broadcast(self, parts: Sequence[Part]) -> bool:
        """Whether the targets of a part may be repeated, so that a closer look is needed."""
        observed = [self.observed.get(part.name) for part in parts]
        return not self._targets_are_whole and any(map(may_broadcast, filter(None, observed)))

    def add_broadcasts(self, turned: np.ndarray, moved: np.ndarray) -> None:
        """Adds the values of the last batch with the targets repeated for each channel.

        A part that repeats targets has the same value when the channels are in another order
        (`turned`), and another value when the targets are others (`moved`).
        """
        values = self.measured[-1].values
        repeats = _are_same(turned, values) & ~_are_same(moved, values)
        self.broadcasts = _all_of(self.broadcasts, repeats)

    @property
    def sizes(self) -> np.ndarray:
        """The number of samples in each batch."""
        return np.array([m.size for m in self.measured], "float64")

    @property
    def samples(self) -> int:
        """The number of all samples, as Keras counts them: the rows of the first input."""
        return int(self.sizes.sum())

    @property
    def rows(self) -> np.ndarray:
        """Over how many rows the value of each part is a mean, `(k,)`."""
        rows: np.ndarray = self._rows_of_batches.sum(axis=0)
        return rows

    @property
    def _rows_of_batches(self) -> np.ndarray:
        """The number of rows of each part in each batch, `(batches, k)`."""
        rows: np.ndarray = np.stack([m.rows for m in self.measured]).astype("float64")
        return rows

    @property
    def weights(self) -> np.ndarray:
        """The mean weights over all samples, without the batches in which they are unknown."""
        return _mean_of_known(np.stack([m.weights for m in self.measured]), self.sizes[:, None])

    @property
    def gramian(self) -> np.ndarray:
        """The mean products of gradients over all rows, without the batches of NaN, `(k, k)`.

        The length of a gradient is the root of its mean square over the rows of its part. The
        product of two is a mean of the same kind: `sum(sqrt(m) * sqrt(n) * product)`, divided by
        `sqrt(sum(m) * sum(n))`, for m and n rows in a batch. So no cosine is above 1.
        """
        stacked = np.stack([m.gramian for m in self.measured])
        rows = self._rows_of_batches
        return _mean_of_known(stacked, rows[:, :, None], rows[:, None, :])

    @property
    def values(self) -> np.ndarray:
        """The values as `evaluate` gives them: NaN where they are NaN in one batch."""
        rows, values = self._rows_of_batches, np.stack([m.values for m in self.measured])
        shares = rows / np.maximum(rows.sum(axis=0), 1.0)
        values = np.where(rows > 0, values, 0.0)
        return np.array([v @ share for v, share in zip(values.T, shares.T, strict=True)])

    @property
    def total(self) -> float:
        """The loss as `evaluate` gives it."""
        return float(np.array([m.total for m in self.measured]) @ self.sizes / self.sizes.sum())

    @property
    def always_zero(self) -> np.ndarray:
        """Which parts are 0 in every batch, or what Keras's clipping of probabilities leaves."""
        zero: np.ndarray = np.all([np.abs(m.values) <= _CLIPPED for m in self.measured], axis=0)
        return zero

    @property
    def reacts(self) -> np.ndarray:
        """Which parts without a gradient change with the predictions."""
        return ~self._unchanged.get("predictions", np.ones(len(self.values), bool))

    @property
    def without_gradient(self) -> np.ndarray:
        """Which parts have no gradient at any prediction, nor near one."""
        none: np.ndarray = np.all([m.gramian.diagonal() == 0 for m in self.measured], axis=0)
        return none if self._gradients_nearby is None else none & ~self._gradients_nearby

    @property
    def not_finite(self) -> np.ndarray:
        """Which parts have a value or a gradient that is not finite."""
        bad = [~np.isfinite(m.values) | ~np.isfinite(m.gramian.diagonal()) for m in self.measured]
        in_any: np.ndarray = np.any(bad, axis=0)
        return in_any

    def ignores(self, what: str) -> np.ndarray:
        """Which parts keep their values with other "sample weights", or with another "mask"."""
        nothing = np.zeros(len(self.values), bool)
        kept: np.ndarray = self._unchanged.get(what, nothing) & self._tried.get(what, nothing)
        return kept

    def labels_of(self, index: int) -> np.ndarray | None:
        """The class of each row of a part; None: unknown."""
        known = [labels for labels in self.labels if labels is not None]
        rows = [m.rows[index] for m in self.measured]
        return np.concatenate(known) if list(map(len, known)) == rows else None

    def facts_of(self, name: str) -> list[np.ndarray]:
        """For each loss in a component what it was given in all batches: arrays `(6,)`."""
        batches = [m.facts.get(name, []) for m in self.measured]
        stacked = [np.stack(each) for each in zip(*batches, strict=False)]
        return [np.where(_MINIMA, each.min(axis=0), each.max(axis=0)) for each in stacked]

    def faulty_samples(self, index: int) -> np.ndarray | None:
        """The rows at which a part is not finite, as indices into its data; None: unknown."""
        pairs = zip(self.measured, [batch[index] for batch in self._faulty], strict=True)
        bad = [np.zeros(m.rows[index], bool) if found is None else found for m, found in pairs]
        samples = np.flatnonzero(np.concatenate(bad))
        return samples if len(samples) else None


def _mean_of_known(
    stacked: np.ndarray, counts: np.ndarray, others: np.ndarray | None = None
) -> np.ndarray:
    """The mean over the first axis, weighted by `sqrt(counts * others)`, of what is not NaN."""
    others = counts if others is None else others
    is_known = ~np.isnan(stacked)
    total = np.where(is_known, stacked * np.sqrt(counts * others), 0.0).sum(axis=0)
    count = np.where(is_known, counts, 0.0).sum(axis=0)
    count = np.sqrt(count * np.where(is_known, others, 0.0).sum(axis=0))
    return np.where(count > 0, total / np.maximum(count, 1e-300), np.nan)


def _are_same(values: np.ndarray, others: np.ndarray, tolerance: float = _SAME) -> np.ndarray:
    """Which values are the same; False where one is not finite."""
    with np.errstate(invalid="ignore"):
        size = np.maximum(np.abs(values), np.abs(others))
        same: np.ndarray = np.abs(values - others) <= tolerance * size
    return same


def _all_of(before: np.ndarray | None, now: np.ndarray) -> np.ndarray:
    return now if before is None else before & now


def may_broadcast(given: Observation) -> bool:
    """Whether a loss of the user's broadcasts targets and predictions along some axis."""
    true, pred = given.y_true, given.y_pred
    if given.traits != Traits() or true is None or pred is None or len(true) != len(pred):
        return False
    return any(a != b and 1 in (a, b) for a, b in zip(true, pred, strict=True))


def _are_whole(y: Arrays) -> bool:
    """Whether all targets are whole numbers, such as class ids."""
    leaves = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    return all(leaf.dtype.kind != "f" or bool(np.all(leaf == np.floor(leaf))) for leaf in leaves)


def _labels(y: Arrays) -> np.ndarray | None:
    """The class of each row, `(N,)`, where targets are class ids or one-hot; else None."""
    leaves = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    if len(leaves) != 1 or leaves[0].dtype.kind not in "fiub":
        return None
    size = len(leaves[0])
    rows: np.ndarray = leaves[0].reshape(size, -1 if size else 1)
    if rows.shape[1] == 1:
        return rows[:, 0].astype(int) if np.all(rows == np.floor(rows)) else None
    one_hot = np.all((rows == 0) | (rows == 1)) and np.all(rows.sum(axis=1) == 1)
    return rows.argmax(axis=1) if one_hot and leaves[0].ndim == 2 else None
