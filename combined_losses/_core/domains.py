"""What the numbers mean that a loss compares: shares, classes, ids, images, probabilities.

Our losses say it by their class attributes `target_kind` and `prediction_kind`; of Keras's a table
knows it. Of any other loss nothing is known, and nothing is asked.
"""

import contextlib
import contextvars
import math
import numbers
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeGuard

import keras
import numpy as np
from keras import ops

from combined_losses._core.batch import Batch
from combined_losses._core.traits import is_ours, keras_function, says
from combined_losses._numerics.arrays import Tensor

# Targets: the range that they must lie in. Of "ids" (those of classes), "labels" (any to be told
# apart) and "images" (which span a range that the loss is told) it is found otherwise.
RANGES = {
    "shares": (0.0, 1.0),  # masks, labels that are independent, soft ones too
    "classes": (0.0, 1.0),  # rows, one-hot or soft, of classes that exclude each other
    "signs": (-1.0, 1.0),
    "amounts": (0.0, float("inf")),
}
WHOLE = ("ids", "labels")
KINDS = (None, *RANGES, *WHOLE, "images")


class Domain(NamedTuple):
    """What a loss means.

    Attributes:
        targets: one of `KINDS`; None: any number, or unknown.
        predictions: "probabilities", or None: any number, or unknown.
        classes: how many there are, where the loss says it.
        max_value: of images, the range that they span.
        voids: targets that stand for missing or void ones.
    """

    targets: str | None = None
    predictions: str | None = None
    classes: int | None = None
    max_value: float | None = None
    voids: frozenset[float] = frozenset()


def domain_of(loss: Any) -> Domain:
    """The `Domain` of a single loss: ours, Keras's, or a string or function that names one."""
    targets, predictions = _kinds(loss)
    if getattr(loss, "from_logits", False):
        predictions = None
    if targets == "classes" and getattr(loss, "multilabel", False):
        targets = "shares"
    found = Domain(targets, predictions, voids=own_voids(loss))
    if targets == "ids":
        found = found._replace(classes=getattr(loss, "num_classes", None))
    return found._replace(
        max_value=getattr(loss, "max_value", None) if targets == "images" else None
    )


def _kinds(loss: Any) -> tuple[str | None, str | None]:
    function = keras_function(loss)
    if function is not None:
        return _OF_KERAS.get(function.__name__, (None, None))
    return _claim(loss, "target_kind"), _claim(loss, "prediction_kind")


def _claim(loss: Any, name: str) -> str | None:
    """What `says` tells, unless a class of the user's gives another `call` than the one meant."""
    bases = type(loss).__mro__
    giver = next((i for i, base in enumerate(bases) if "call" in vars(base)), 0)
    place = next((i for i, base in enumerate(bases) if name in vars(base)), 0)
    ours = is_ours(bases[giver])
    meant = [base for base in bases[place:] if "call" in vars(base) and base is not _LOSS]
    claim: str | None = says(loss, name) if ours or giver >= place or not meant else None
    return claim


def own_voids(loss: object) -> frozenset[float]:
    """The targets that a loss takes for missing or void, beside what is inside of it."""
    names = ("mask_value", "ignore_value", "ignore_class")
    own = (getattr(loss, name, None) for name in names)
    return frozenset(filter(_is_real, own))


def _is_real(number: object) -> TypeGuard[float]:
    return isinstance(number, numbers.Real)


def is_void(array: Tensor, voids: Iterable[float]) -> Tensor | None:
    """Where a target is one of the numbers that mean "void"; None without such numbers."""
    found = None
    for number in voids:
        same = ops.isnan(array) if math.isnan(number) else ops.equal(array, float(number))
        found = same if found is None else ops.logical_or(found, same)
    return found


_LOSS = keras.losses.Loss
_SHARES, _CLASSES = ("shares", "probabilities"), ("classes", "probabilities")
_OF_KERAS: dict[str, tuple[str | None, str | None]] = {
    "binary_crossentropy": _SHARES,
    "binary_focal_crossentropy": _SHARES,
    "dice": _SHARES,
    "tversky": _SHARES,
    "categorical_crossentropy": _CLASSES,
    "categorical_focal_crossentropy": _CLASSES,
    "kl_divergence": _CLASSES,
    "categorical_hinge": ("classes", None),
    "sparse_categorical_crossentropy": ("ids", "probabilities"),
    "categorical_generalized_cross_entropy": ("ids", "probabilities"),
    "circle": ("labels", None),
    "hinge": ("signs", None),
    "squared_hinge": ("signs", None),
    "mean_squared_logarithmic_error": ("amounts", None),
    "poisson": ("amounts", None),
}


# What losses are given, as far as it may lie outside of what they mean.


class Facts:
    """What single losses were given in one evaluation, each by the label of its component.

    Attributes:
        domains: by label a list of pairs of the `Domain` of a loss and its number of classes.
        numbers: by label a list of tensors `(6,)`, one for each of these: the smallest and the
            largest target, 1 where one is no whole number, 1 where one is missing, the smallest and
            the largest prediction. Of what counts; infinite where nothing does.
        notes: by label a list of pairs of a flag and a message.
    """

    def __init__(self) -> None:
        self.domains: dict[str, list[tuple[Domain, int | None]]] = {}
        self.numbers: dict[str, list[Tensor]] = {}
        self.notes: dict[str, list[tuple[str, str]]] = {}

    def note(self, label: str, flag: str, message: str) -> None:
        """Leaves a message that is true whatever the numbers are."""
        self.notes.setdefault(label, []).append((flag, message))


_facts: contextvars.ContextVar[Facts | None] = contextvars.ContextVar(
    "combined_losses_facts", default=None
)


@contextlib.contextmanager
def examining() -> Iterator[Facts]:
    """In the block losses leave what they are given; it gives the `Facts`."""
    facts = Facts()
    token = _facts.set(facts)
    try:
        yield facts
    finally:
        _facts.reset(token)


examined = _facts.get
"""`examined()` is the `Facts` of who is `examining`, or None."""


def examine(label: str, loss: Any, batch: Batch, y_true: Any, y_pred: Any, axis: int = -1) -> None:
    """Leaves what a loss is given to who is `examining`."""
    if examined() is None or keras.tree.is_nested(y_pred) or keras.tree.is_nested(y_true):
        return
    domain = domain_of(loss)
    classes = domain.classes
    if domain.targets == "ids" and classes is None:
        classes = y_pred.shape[axis]
    leave(label, domain, classes, batch, y_true, y_pred, axis)


def leave(
    label: str,
    domain: Domain,
    classes: int | None,
    batch: Batch,
    y_true: Tensor | None,
    y_pred: Tensor | None,
    axis: int = -1,
) -> None:
    """Leaves the facts of one loss, or of a wrapper that reads targets by itself."""
    facts = examined()
    if facts is None or (domain.targets is None and domain.predictions is None):
        return
    targets = _facts_of(y_true, batch, axis, domain.voids)
    predictions = _facts_of(y_pred, batch, axis, frozenset())[:2]
    facts.domains.setdefault(label, []).append((domain, classes))
    facts.numbers.setdefault(label, []).append(ops.stack([*targets, *predictions]))


def _facts_of(
    array: Tensor | None, batch: Batch, axis: int, voids: Iterable[float]
) -> list[Tensor]:
    """The smallest, the largest, whether one is no whole number, whether one is missing."""
    if array is None:
        return [ops.convert_to_tensor(n, "float32") for n in (math.inf, -math.inf, 0.0, 0.0)]
    counts = batch.used(array, axis)
    array = ops.cast(array, "float32")
    counts = ops.ones_like(array, dtype="bool") if counts is None else counts
    counts = ops.broadcast_to(counts, ops.shape(array))
    void = is_void(array, voids)
    if void is not None:
        counts = ops.logical_and(counts, ops.logical_not(void))
    finite = ops.logical_and(counts, ops.isfinite(array))
    missing = ops.any(ops.logical_and(counts, ops.logical_not(ops.isfinite(array))))
    known = ops.where(finite, array, ops.zeros_like(array))
    found = [
        ops.min(ops.where(finite, array, math.inf), initial=math.inf),
        ops.max(ops.where(finite, array, -math.inf), initial=-math.inf),
        ops.any(ops.not_equal(known, ops.floor(known))),
        missing,
    ]
    return [ops.stop_gradient(ops.cast(fact, "float32")) for fact in found]


def mended(loss: Any, y_true: Tensor, y_pred: Tensor, axis: int = -1) -> Tensor | None:
    """Targets moved to the nearest that the loss means, void ones left alone; None: unknown.

    Keras's losses raise on some, where `cl.diagnose` has more to say.
    """
    domain = domain_of(loss)
    if domain.targets in RANGES:
        least, most = RANGES[domain.targets]
    elif domain.targets == "ids":
        least, most = 0, (domain.classes or y_pred.shape[axis]) - 1
    else:
        return None
    wide = ops.cast(y_true, "float32")
    known = ops.where(ops.isnan(wide), float(least), wide)
    inside = ops.clip(known, least, min(most, float(np.finfo("float32").max)))
    void = is_void(wide, domain.voids)
    if void is not None:
        inside = ops.where(void, wide, inside)
    return ops.cast(inside, y_true.dtype)
